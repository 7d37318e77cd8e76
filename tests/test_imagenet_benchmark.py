"""ImageNet's benchmark, rehearsed on a small folder of images, with the code that runs on the whole."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from digits_folder import write_folder

from benchmarks.imagenet import BASES, hours, main
from benchmarks.imagenet_report import PUBLISHED, TITLES, table
from cp_vision.recipes import cli as train_cli

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "imagenet.py"
RECIPE = """
model: test_vit
model_kwargs: {depth: 3, patch_size: 8}
img_size: 32
batch_size: 16
scale: [0.9, 1.0]
hflip: 0
epochs: 16
opt: muon
lr: 0.02
workers: 0
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A folder of three classes, a base trained on it, and the arguments that name them."""
    root = tmp_path_factory.mktemp("imagenet")
    data, base, recipe = write_folder(root / "data"), root / "base", root / "recipe.yaml"
    recipe.write_text(RECIPE)
    assert train_cli.main([str(recipe), "--data-dir", str(data), "--output", str(base)]) == 0
    words = ["--data-dir", str(data), "--base", "test_vit", "--weights", str(base / "last" / "model.safetensors")]
    words += ["--fit-images", "32", "--recipe", str(recipe), "--set", "batch_size=16"]
    return [*words, "--output", str(root / "found")]


@pytest.mark.slow
def test_a_rehearsal_prints_the_rows_and_goes_on_where_it_was(words, tmp_path, capsys):
    main([*words, "--epochs", "1", "--budgets", "0.8x"])
    first = capsys.readouterr().out
    found = Path(words[-1]) / "test_vit"
    before = (found / "0.8x" / "model.safetensors").stat().st_mtime_ns
    main([*words, "--epochs", "1", "--budgets", "0.8x", "0.5x"])
    shown = capsys.readouterr().out
    # What was there isn't done again.
    assert (found / "0.8x" / "model.safetensors").stat().st_mtime_ns == before
    assert "cp-vision, 0.5x" in shown
    assert "cp-vision, 0.5x" not in first
    rows = re.findall(r"^\| cp-vision, (\S+)\S* .*\| test_vit, \d.* \| \S+ G \| [\d.]+ ± [\d.]+ \| .+ \|$", shown, re.M)
    assert {row.rstrip(",") for row in rows} == {"0.8x", "0.5x"}
    main([*words, "--report"])
    assert capsys.readouterr().out.strip() in shown
    # As a script, with a mistake.
    done = subprocess.run([sys.executable, SCRIPT, "--base", "test_vit"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "imagenet: error: --data-dir is missing; name a folder with train/ and val/\n"


@pytest.mark.slow
def test_a_rehearsal_as_tasks_of_ray(words, tmp_path):
    output = tmp_path / "with-ray"
    command = [sys.executable, str(SCRIPT), *words[:-1], str(output), "--ray", "here", "--cpus", "1", "--gpus", "0"]
    done = subprocess.run(
        [*command, "--epochs", "0", "--budgets", "0.7x"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "| cp-vision, 0.7x | test_vit, " in done.stdout
    assert (output / "test_vit" / "0.7x" / "model.safetensors").is_file()


def test_hours_grow_with_epochs_and_fall_with_speed():
    base = BASES["deit_s"]
    assert hours(base, 10, 25) == pytest.approx(10 * hours(base, 1, 25))
    assert hours(base, 1, 50) == pytest.approx(hours(base, 1, 25) / 2)
    # By hand: 12 models, (1 + 3 share) passes of 4.607 G each.
    by_hand = sum(3 * 2 * 4.607e9 * (1 + 3 * share) for share in (0.8, 0.7, 0.6, 0.5)) * 1_281_167 / 25e12 / 3600
    assert hours(base, 1, 25) == pytest.approx(by_hand, rel=1e-3)


def test_the_guide_tells_these_hours():
    guide = (ROOT / "docs" / "imagenet.md").read_text()
    for base in BASES.values():
        assert f"| {base.title} | {', '.join(base.budgets)} | {hours(base, 10, 25):.0f} |" in guide


def test_the_slurm_script_has_a_task_for_each_base():
    text = (ROOT / "examples" / "imagenet.sbatch").read_text()
    (names,) = re.findall(r"^bases=\((.+)\)$", text, re.MULTILINE)
    assert names.split() == list(BASES)
    assert f"#SBATCH --array=0-{len(BASES) - 1}\n" in text
    subprocess.run(["bash", "-n", ROOT / "examples" / "imagenet.sbatch"], check=True)


def test_the_readmes_table_has_what_papers_print_and_a_row_for_each_base():
    readme = (ROOT / "README.md").read_text()
    published = table([]).splitlines()
    assert "\n".join(published[2:]) in readme
    assert published[0] in readme
    for base in BASES.values():
        assert re.search(
            rf"^\| cp-vision, {base.budgets[1]} \| {re.escape(base.title)} \|.*\| not run yet \|", readme, re.M
        )
    assert len(TITLES) == len(PUBLISHED[0])
