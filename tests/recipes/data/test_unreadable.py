"""Images that can't be read."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from digits_folder import FOLDER, sets
from safetensors.torch import load_file

from cp_vision import UserError
from cp_vision.recipes import Recipe, Training, load_recipe, open_splits, score_model
from cp_vision.recipes.cli import main

QUICK = ["epochs=2", "opt=adamw", "lr=0.002"]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_counted_reported_and_skipped_up_to_a_limit(workers, image_folder, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(image_folder, root)
    train_split, test_split = open_splits(Recipe(data_dir=str(root)))
    whole = Path(train_split.dataset.reader.samples[7][0]).read_bytes()
    damage = {
        train_split: [b"no image", whole[: len(whole) // 2], b""],
        test_split: [b"no image", whole[:50]],
    }
    for split, contents in damage.items():
        for (path, _), content in zip(split.dataset.reader.samples, contents, strict=False):
            Path(path).write_bytes(content)
    with pytest.raises(OSError, match=r"0/\d+\.png"):
        test_split[0]
    settings = [*FOLDER, *QUICK, f"workers={workers}"]
    arguments = ["default", *sets(settings), "--data-dir", str(root), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--max-unreadable", "1"]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert re.search(r"unreadable images?: 0/\d+\.png.* 1 .*--max-unreadable", error), error
    assert main([*arguments, "--max-unreadable", "3"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:2]] == [
        "skipped 3 unreadable images",
        "skipped 2 unreadable images",
    ]
    # The scores are those of the readable images.
    shutil.copytree(root, tmp_path / "clean")
    for path, _ in test_split.dataset.reader.samples[:2]:
        (tmp_path / "clean" / "val" / Path(path).relative_to(root / "val")).unlink()
    scored = [
        score_model(load_recipe("default", [*settings, f"data_dir={folder}"]), str(tmp_path / "out" / "last"))
        for folder in (root, tmp_path / "clean")
    ]
    assert [scores.pop("unreadable")[:20] for scores in scored] == ["2 unreadable images:", ""]
    assert scored[0] == pytest.approx(scored[1])
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"")
    assert main([*arguments[:-1], str(tmp_path / "none"), "--max-unreadable", "1000"]) == 1
    assert "60 unreadable images: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def half_way(image_folder, tmp_path_factory):
    """A data set of whose splits an image can't be read, and the folder of a training after one of two epochs."""
    root = tmp_path_factory.mktemp("half")
    shutil.copytree(image_folder, root / "data")
    for split in open_splits(Recipe(data_dir=str(root / "data"))):
        Path(split.dataset.reader.samples[0][0]).write_bytes(b"no image")
    Training(half_way_recipe(root / "data"), root / "whole").run()
    shutil.copytree(root / "whole", root / "stopped")
    (root / "stopped" / "checkpoint.previous.pt").replace(root / "stopped" / "checkpoint.pt")
    (root / "stopped" / "summary.json").unlink()
    return root


def half_way_recipe(data):
    # All sixty images are seen in each epoch.
    return load_recipe("default", [*FOLDER, *QUICK, "batch_size=15", f"data_dir={data}"])


def replaced(bad, good):
    bad.unlink()
    shutil.copy(good, bad.with_name("zzz.png"))


@pytest.mark.parametrize(
    ("split", "change", "result"),
    [
        ("train", lambda bad, good: None, 1),
        ("train", lambda bad, good: shutil.copy(good, bad), 0),
        ("val", lambda bad, good: shutil.copy(good, bad), 0),
        ("train", replaced, "other images.*--output"),
        ("val", replaced, "other images.*--output"),
        ("train", lambda bad, good: bad.unlink(), "training images 60.* 59.*--output"),
        ("val", lambda bad, good: bad.unlink(), "validation images 30.* 29.*--output"),
    ],
)
def test_what_became_of_unreadable_images_is_seen_when_a_training_goes_on(split, change, result, half_way, tmp_path):
    for name in ("data", "stopped"):
        shutil.copytree(half_way / name, tmp_path / name)
    (bad,) = (path for path in (tmp_path / "data" / split).rglob("*.png") if path.read_bytes() == b"no image")
    change(bad, next(path for path in bad.parent.iterdir() if path != bad))
    recipe = half_way_recipe(tmp_path / "data")
    if isinstance(result, str):
        with pytest.raises(UserError, match=result):
            Training(recipe, tmp_path / "stopped")
        return
    summary = Training(recipe, tmp_path / "stopped").run()
    whole = json.loads((half_way / "whole" / "summary.json").read_text())
    assert len(whole["unreadable"]) == 2
    assert len(summary["unreadable"]) == 1 + result
    if result:
        one, other = (
            load_file(folder / "last" / "model.safetensors") for folder in (half_way / "whole", tmp_path / "stopped")
        )
        assert all(torch.equal(value, other[key]) for key, value in one.items())
        assert summary == whole
