"""A trained model and a budget on the command line give folders that timm loads."""

import csv
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import commands
import pytest
import timm
import torch
from digits_base import ARGUMENTS, MODEL_KWARGS
from safetensors.torch import save_file
from timm.models import save_for_hf

from cp_vision import UserError, count_macs
from cp_vision.recipes.data.digits import Digits
from cp_vision.search import Search, SearchConfig
from cp_vision.search.cli.main import main
from cp_vision.search.fit.accuracy import evaluated
from cp_vision.search.run_fit import FitSearch


@pytest.mark.slow
def test_a_folder_for_each_budget(weights, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["test_vit", *MODEL_KWARGS, "--weights", str(weights), "--fit-images", "32", "--output", str(out)]
    assert main([*words, "--budget", "0.5x,0.8x"]) == 0
    shown = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    base = timm.create_model("test_vit", **ARGUMENTS)
    assert results["base_costs"]["macs"] == count_macs(base)
    assert results["images"] == 32
    for point, share in zip(results["points"], (0.8, 0.5), strict=True):
        folder = out / point["budget"]
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert count_macs(model) == point["costs"]["macs"] <= share * count_macs(base)
        assert json.loads((folder / "metrics.json").read_text()) == point
        assert str(folder) in shown
        assert f"local-dir:{folder}" in (folder / "README.md").read_text()
        assert {"no pools", "drop only"} >= set(point["counterparts"])
    # Another budget comes from the same library, which is not fitted again, and joins those that are there.
    library = {path: path.stat().st_mtime_ns for path in (out / "library").rglob("*.safetensors")}
    assert main([*words, "--budget", "0.7x"]) == 0
    assert {path: path.stat().st_mtime_ns for path in library} == library
    assert (out / "0.7x" / "model.safetensors").exists()
    after = json.loads((out / "results.json").read_text())
    assert [point["budget"] for point in after["points"]] == ["0.8x", "0.7x", "0.5x"]
    assert [point for point in after["points"] if point["budget"] != "0.7x"] == results["points"]
    rows = list(csv.DictReader((out / "front.csv").open()))
    assert {row["budget"] for row in rows} == {"", "0.5x", "0.7x", "0.8x"}
    assert len(list(csv.DictReader((out / "options.csv").open()))) == len(results["options"])


@pytest.fixture(scope="module")
def found(weights, tmp_path_factory):
    """The folder of a finished search."""
    out = tmp_path_factory.mktemp("found") / "<b>out & more"
    folder = f"local-dir:{weights.parent}"
    words = ["test_vit", *MODEL_KWARGS, "--weights", folder, "--fit-images", "32", "--budget", "0.6x"]
    assert main([*words, "--output", str(out)]) == 0
    return out


def test_the_report_says_what_the_results_say(found):
    page = (found / "report.html").read_text()
    results = json.loads((found / "results.json").read_text())
    (point,) = results["points"]
    for outcome in (point, *point["counterparts"].values()):
        assert f"{outcome['share_of_base']:.3f}x" in page
        assert f"{outcome['test_top1']['value']:.2f}" in page
    assert all(option["place"] in page for option in results["options"])
    assert "<b>out" not in page
    assert "&lt;b&gt;out &amp; more" in page
    assert not re.search(r"(src|href)=.https?:", page)


def test_a_finished_search_is_looked_at_and_gone_on_with(found, capsys):
    page = (found / "report.html").read_bytes()
    (found / "report.html").unlink()
    assert main(["report", str(found)]) == 0
    assert (found / "report.html").read_bytes() == page
    capsys.readouterr()
    assert main(["status", str(found)]) == 0
    assert "0.6x: " in capsys.readouterr().out
    assert main(["export", str(found), "0"]) == 2
    before = (found / "0.6x" / "model.safetensors").read_bytes()
    for quiet in ([], ["--quiet"]):
        assert main(["resume", str(found), *quiet]) == 0
        assert bool(capsys.readouterr().err) != bool(quiet)
    assert (found / "0.6x" / "model.safetensors").read_bytes() == before
    # Of another evaluator it is another search.
    assert main(["test_vit", "--budget", "0.6x", "--output", str(found)]) == 2


def test_a_budget_is_there_before_the_next_is_looked_for(found, weights, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(found, out)
    config = SearchConfig(
        base="test_vit",
        model_kwargs={"patch_size": 8, "depth": 3},
        weights=f"local-dir:{weights.parent}",
        evaluator="fit",
        fit_images=32,
        budget="0.9x,0.8x",
        output=out,
    )

    def stop(done, total, what):
        if what == "budget 0.9x":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FitSearch(config).run(stop)
    timm.create_model(f"local-dir:{out / '0.9x'}", pretrained=True)
    assert not (out / "0.8x").exists()
    points = json.loads((out / "results.json").read_text())["points"]
    assert [point["budget"] for point in points] == ["0.9x", "0.6x"]
    assert "0.9x" in (out / "report.html").read_text()


@pytest.mark.slow
def test_a_base_without_weights_is_trained_once(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["test_vit", *MODEL_KWARGS, "--evaluator", "fit", "--fit-images", "128", "--set", "epochs=4"]
    words += ["--set", "opt=adamw", "--set", "lr=0.003", "--refit-images", "200"]
    words += ["--distil-epochs", "1", "--output", str(out), "--budget"]
    # A budget that can't be met is told before the base is trained.
    assert main([*words, "0.01x"]) == 2
    assert not out.exists()
    assert main([*words, "0.7x"]) == 0
    base = out / "base" / "last" / "model.safetensors"
    trained = base.stat().st_mtime_ns
    results = json.loads((out / "results.json").read_text())
    summary = json.loads((out / "base" / "summary.json").read_text())
    assert results["base_test_top1"]["value"] == pytest.approx(summary["top1"])
    (point,) = results["points"]
    assert point["before_distillation"]["divergence"] >= point["divergence"]
    assert set(results["base_rates"]) == set(point["rates"]) == {"1", "32"}
    assert main([*words, "0.8x"]) == 0
    assert base.stat().st_mtime_ns == trained
    # Of another training it is another search.
    assert main([*words, "0.8x", "--set", "epochs=5"]) == 2
    (out / "results.json").unlink()
    shutil.rmtree(out / "library")
    (out / "base" / "summary.json").unlink()
    capsys.readouterr()
    assert main(["status", str(out)]) == 0
    assert "4 epochs" in capsys.readouterr().out


def test_a_plan_says_what_can_be_reached_and_writes_nothing(weights, tmp_path, capsys):
    words = ["test_vit", *MODEL_KWARGS, "--weights", str(weights), "--fit-images", "32", "--output"]
    assert main([*words, str(tmp_path / "new"), "--plan", "--budget", "0.9x"]) == 0
    least = re.search(r"smallest that can be met: (0\.\d+)x", capsys.readouterr().out)[1]
    assert not (tmp_path / "new").exists()
    # True to the last digit: it is rounded to three.
    assert main([*words, str(tmp_path / "new"), "--plan", "--budget", f"{float(least) + 0.001:.3f}x"]) == 0
    assert main([*words, str(tmp_path / "new"), "--plan", "--budget", f"{float(least) - 0.001:.3f}x"]) == 2


@pytest.mark.parametrize("evaluator", ["fit", "sensitivity"])
def test_classes_are_those_of_the_weights_whatever_the_order_of_folders(evaluator, weights, tmp_path):
    names = {str(i): f"{9 - i} or so" for i in range(10)}
    model = timm.create_model(f"local-dir:{weights.parent}", pretrained=True)
    save_for_hf(model, tmp_path / "base", {"label_names": names}, safe_serialization=True)
    data = tmp_path / "data"
    digits = Digits(train=True)
    for i in range(160):
        image, label = digits[i]
        folder = data / ("train" if i < 120 else "val") / names[str(label)]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{i}.png")
    values = {"base": "test_vit", "evaluator": evaluator, "budget": "0.6x", "output": str(tmp_path / "out")}
    values |= {"model_kwargs": {"patch_size": 8, "depth": 3}, "data_dir": str(data)}
    config = SearchConfig(**values, overrides=(f"initial_checkpoint=local-dir:{tmp_path / 'base'}", "img_size=32"))
    # A base whose classes are those of others is refused.
    search = FitSearch(config) if evaluator == "fit" else Search(config)
    train = search.train if evaluator == "fit" else search.train_set
    test = search.test if evaluator == "fit" else search.test_set
    assert train.classes == test.classes == {name: int(index) for index, name in names.items()}
    (data / "val" / "x").mkdir()
    (data / "val" / "x" / "0.png").write_bytes((data / "val" / names["0"]).glob("*.png").__next__().read_bytes())
    with pytest.raises(UserError, match=r"'val.*' has classes that .* lacks: x"):
        FitSearch(config) if evaluator == "fit" else Search(config)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--budget", "0.01x"], ["0.01x"]),
        (["--weights", "none.safetensors"], ["none.safetensors"]),
        (["--weights", "local-dir:none"], ["local-dir:none", "config.json"]),
        (["--weights", "WEIGHTS", "--budget", "0.5x,0.5x"], ["0.5x"]),
        (["--weights", "WEIGHTS", "--budget", "0.01x"], ["0.01x"]),
        (["--weights", "WEIGHTS", "--budget", "params=0.5x,0.5x"], ["one measure"]),
        (["--weights", "WEIGHTS", "--plan", "--budget", "0.01x"], ["0.01x"]),
        (["--weights", "WEIGHTS", "--keep-accuracy", "0.5"], ["keep"]),
        (["--weights", "WEIGHTS", "--sampler", "tpe"], ["--sampler"]),
        (["--weights", "WEIGHTS", "--parallel", "2"], ["--parallel", "ray"]),
        (["--weights", "WEIGHTS", "--fit-images", "3"], ["--fit-images"]),
        (["--weights", "WEIGHTS", "--evaluator", "train", "--fit-images", "64"], ["--fit-images"]),
        (["--weights", "WEIGHTS", "--model-kwargs", "depth=4"], ["depth"]),
        (["--weights", "WEIGHTS", "--trials", "5"], ["--evaluator", "trials"]),
        (["--weights", "GUESSING"], ["guessing"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, named, weights, tmp_path, capsys):
    guessing = tmp_path / "guessing.safetensors"
    if "GUESSING" in words:
        save_file(timm.create_model("test_vit", **ARGUMENTS).state_dict(), guessing)
    words = [{"WEIGHTS": str(weights), "GUESSING": str(guessing)}.get(word, word) for word in words]
    kwargs = [] if "--model-kwargs" in words else MODEL_KWARGS
    out = tmp_path / "out"
    evaluator = [] if "--evaluator" in words else ["--evaluator", "fit"]
    assert main(["test_vit", *kwargs, *words, *evaluator, "--output", str(out)]) == (1 if named == ["guessing"] else 2)
    # Beyond what tells how far it is.
    *_, said = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("cp-search: error: ")
    assert all(name in said for name in named)
    left = [path for path in out.rglob("*") if path.is_file() and not {"library", ".lock"} & {*path.parts}]
    assert not left


def test_the_error_of_a_difference_is_that_of_its_pairs():
    one, other = torch.tensor([1.0, 1, 1, 0, 1, 1]), torch.tensor([1.0, 1, 0, 0, 1, 1])
    first, second = (evaluated(lambda _, values=values: values, torch.nn.Identity()) for values in (one, other))
    found = first.over(second)
    assert found.value == pytest.approx(100 / 6)
    # One image in six, and half an image more for either.
    assert found.error == pytest.approx(100 * (2 - 1 / 8) ** 0.5 / 8)
    assert found.error < second.error
    # Nobody is sure of what no image shows.
    assert 0 < first.over(first).error < found.error
    assert evaluated(lambda _: torch.ones(6), torch.nn.Identity()).error > 0
    assert evaluated(lambda _: 70.0, torch.nn.Identity()).over(second).error is None


def test_the_error_of_a_difference_covers_it():
    """Of two models that differ by chance alone in one of a hundred images, 95 % intervals hold the truth as often."""
    draw = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(400):
        kinds = torch.rand(100, generator=draw)
        one, other = (kinds > 0.1).double(), ((kinds > 0.1) ^ (kinds > 0.99)).double()
        found, rest = (evaluated(lambda _, values=values: values, torch.nn.Identity()) for values in (one, other))
        gain = found.over(rest)
        held += abs(gain.value - 1.0) <= 1.96 * gain.error
    assert held >= 0.95 * 400


@pytest.mark.slow
def test_a_schedulers_end_is_one_line_and_the_same_command_goes_on(weights, tmp_path):
    out = tmp_path / "out"
    words = [
        "cp-search",
        "test_vit",
        *MODEL_KWARGS,
        "--weights",
        str(weights),
        "--budget",
        "0.8x",
        "--output",
        str(out),
    ]
    running = commands.start(words)
    while running.is_running and not list(out.glob("library/block-*.json")):
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    done = running.wait()
    assert done.returncode == 143
    assert f"The same command goes on: {shlex.join(words)}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(out.rglob("*.unfinished"))


def test_a_folder_of_something_else_is_left_alone(weights, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("model: resnet18")
    assert main(["test_vit", *MODEL_KWARGS, "--weights", str(weights), "--output", str(tmp_path)]) == 2
    assert "recipe.yaml" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


KILLS = 20


@pytest.mark.nightly
def test_killed_again_and_again_it_ends_in_the_same_models(weights, tmp_path):
    words = ["test_vit", *MODEL_KWARGS, "--weights", str(weights), "--fit-images", "64", "--budget", "0.5x,0.8x"]

    def start(folder):
        command = [sys.executable, "-m", "cp_vision.search.cli.main", *words, "--output", str(folder)]
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)

    begin = time.perf_counter()
    assert start(tmp_path / "whole").wait() == 0
    whole = time.perf_counter() - begin
    draw, killed, fitted = random.Random(0), tmp_path / "killed", {}
    for _ in range(KILLS):
        run = start(killed)
        try:
            # Some end before they are killed, which a search has to bear as well.
            run.wait(draw.uniform(0.2, 1.0) * whole)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
        now = {path.name: path.stat().st_mtime_ns for path in (killed / "library").glob("block-*.json")}
        assert fitted.items() <= now.items()
        fitted = now
    assert start(killed).wait() == 0
    for name in ("options.csv", "0.5x/model.safetensors", "0.8x/model.safetensors"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows, wanted = (list(csv.DictReader((tmp_path / name / "front.csv").open())) for name in ("killed", "whole"))
    for row, own in zip(rows, wanted, strict=True):
        assert {**row, **{key: own[key] for key in own if key.startswith("images_per_second")}} == own
