"""Whole searches with real trainings on real images, as a user runs them, also when they are killed."""

import csv
import json
import random
import resource
import shlex
import signal
import time
from pathlib import Path

import commands
import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config

import cp_vision
from cp_vision import Architecture
from cp_vision.recipes import cli as train_cli
from cp_vision.recipes.data.digits import Digits
from cp_vision.recipes.data.images import Images
from cp_vision.search import Search, SearchConfig
from cp_vision.search.cli import main as cli
from cp_vision.search.config.files import load_config
from cp_vision.shared.command_line import CommandError

SMALL = [
    *("test_vit2", "--model-kwargs", "patch_size=16", "depth=4", "init_values=1.0", "--budget", "0.8x"),
    # The recipe's Muon learns more and takes longer.
    *("--set", "epochs=2", "--set", "batch_size=128", "--set", "opt=adamw", "--set", "lr=0.004"),
    *("--finalists", "1", "--seeds", "2"),
]


def cp_search(output, trials, *more, base=SMALL):
    return ["cp-search", *base, "--output", str(output), "--trials", str(trials), *more]


def run(command, code=0):
    done = commands.run(command)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def here(capsys):
    """Run a command in this process, which has imported everything already; gives what it printed: out and err."""

    def run_here(command, code=0):
        main = {"cp-search": cli.main, "cp-train": train_cli.main}[Path(command[0]).name]
        assert main(command[1:]) == code
        return capsys.readouterr()

    return run_here


def table(folder):
    """The candidates of a search, without what is timed."""
    with (folder / "pareto.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "latency_ms")} for row in csv.DictReader(file)]


def accuracy_by_hand(folder):
    """Test accuracy of a folder with timm alone, one image at a time."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    digits = Digits(train=False)
    images = torch.stack([transform(digits[i][0].convert("RGB")) for i in range(len(digits))])
    with torch.inference_mode():
        right = [model(image[None]).argmax().item() == digits[i][1] for i, image in enumerate(images)]
    return 100 * sum(right) / len(right)


def base_weights(output):
    """The trained weights of a search's base."""
    for path in (output / "weights").iterdir():
        args = json.loads((path / "config.json").read_text())["model_args"]
        if not args["drops"] and not args["pools"]:
            return path / "model.safetensors"
    raise AssertionError("the base's weights are kept")


# One search is looked at by all of these.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("found")]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A finished search of six trials, and what it printed."""
    output = tmp_path_factory.mktemp("search") / "runs" / "digits"
    return output, run(cp_search(output, 6))


def test_what_a_search_prints_and_writes(found):
    output, done = found
    for text in (
        "blocks.3",
        "may be pooled, dropped",
        "least reachable",
        "360 for the final test",
        "winner",
        "local-dir:",
    ):
        assert text in done.stdout
    assert "6.0/6 trials" in done.stderr
    assert "best " in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    names = {path.name for path in output.iterdir()}
    assert names == {
        *(".finish.lock", ".lock", ".workers", "best", "front", "pareto.csv", "report.html", "results.json"),
        "search.json",
        *("sensitivity.csv", "sensitivity.svg", "study.db", "weights"),
    }
    best = {"README.md", "config.json", "metrics.json", "model.safetensors", "recipe.yaml"}
    assert {path.name for path in (output / "best").iterdir()} == best
    rows = table(output)
    assert len(rows) >= 6
    assert {row["state"] for row in rows} <= {"complete", "stopped"}
    # Only candidates with a role keep their weights, and the members of the front; each of these is a model folder.
    members = [row for row in rows if row["front"] == "1" and row["number"] != "0"]
    assert {path.name for path in (output / "front").iterdir()} == {row["number"] for row in members}
    # Those with a role were trained with both seeds.
    assert len(list((output / "weights").iterdir())) <= 2 * 5 + len(members)
    assert {row["seeds"] for row in rows} == {"1", "2"}
    for row in members:
        model = timm.create_model(f"local-dir:{output / 'front' / row['number']}", pretrained=True)
        assert cp_vision.count_macs(model) == int(row["macs"])
    lost = (output / "sensitivity.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lost] == ["block", *(f"blocks.{i}" for i in range(4))]
    assert (output / "sensitivity.svg").read_text().startswith("<svg")
    assert rows[0]["pools"] == rows[0]["drops"] == ""


def test_the_winner_loads_with_the_accuracy_that_was_reported(found, here):
    output, done = found
    metrics = json.loads((output / "best" / "metrics.json").read_text())
    assert accuracy_by_hand(output / "best") == metrics["test_top1"]
    by_seed = json.loads((output / "results.json").read_text())["winner"]["test_top1_by_seed"]
    assert by_seed[str(metrics["seed"])] == metrics["test_top1"]
    mean = f"{sum(by_seed.values()) / 2:.2f} ± "
    assert f"test {mean}" in done.stdout
    assert mean in (output / "report.html").read_text()
    architecture = Architecture.from_json(json.dumps(metrics["architecture"]))
    model = timm.create_model(f"local-dir:{output / 'best'}", pretrained=True)
    assert cp_vision.count_macs(model) == metrics["macs"] == architecture.macs((3, 32, 32))
    assert metrics["macs"] <= 0.8 * metrics["macs_of_base"]
    assert sum(parameter.numel() for parameter in model.parameters()) == metrics["params"]
    scored = here(["cp-train", str(output / "best" / "recipe.yaml"), "--eval", str(output / "best")])
    assert f"top-1 {metrics['test_top1']:.2f} %" in scored.out


def test_the_winner_trains_again_by_its_own_command(found, tmp_path):
    output, _ = found
    command = json.loads((output / "best" / "metrics.json").read_text())["train_command"]
    command = shlex.split(command)
    assert command[0] == "cp-train"
    again = tmp_path / "again"
    run(["cp-train", command[1], "--output", str(again)])
    one, two = (json.loads((folder / "config.json").read_text()) for folder in (output / "best", again / "last"))
    assert one["architecture"] == two["architecture"]
    for key in ("pools", "drops"):
        assert one["model_args"][key] == two["model_args"][key]


def test_commands_on_a_finished_search(found, here, tmp_path):
    output, _ = found
    rows = table(output)
    status = here(["cp-search", "status", str(output)]).out
    assert f"{len(rows)} candidates tried" in status
    assert "winner" in status
    (output / "report.html").unlink()
    here(["cp-search", "report", str(output)])
    assert (output / "report.html").exists()
    # One whose weights are gone is trained again, to the accuracy that it had.
    gone = next(row for row in rows if row["front"] == "0" and row["number"] != "0" and row["state"] == "complete")
    folder = tmp_path / "exported"
    done = run(["cp-search", "export", str(output), gone["number"], "--output", str(folder)])
    assert f'timm.create_model("local-dir:{folder}", pretrained=True)' in done.stdout
    assert cp_vision.count_macs(timm.create_model(f"local-dir:{folder}")) == int(gone["macs"])
    assert json.loads((folder / "metrics.json").read_text())["validation_top1"] == float(gone["accuracy"])
    assert table(output) == rows
    for words, message in (
        (["export", str(output), "99"], "number 99 is no candidate of this search"),
        (["export", str(output), gone["number"], "--output", str(folder)], "is there already"),
        (["status", str(tmp_path)], "holds no search"),
    ):
        assert message in here(["cp-search", *words], code=2).err


def test_a_plan_writes_nothing(here, tmp_path):
    done = here(cp_search(tmp_path / "x", 6, "--plan"))
    for text in ("the space has 81 candidates", "macs: from", "training the base takes", "weights on disk"):
        assert text in done.out
    assert not (tmp_path / "x").exists()


def test_sensitivity_needs_no_training(found, here, tmp_path):
    output, _ = found
    weights = base_weights(output)
    done = here(cp_search(tmp_path / "s", 6, "--evaluator", "sensitivity", "--set", f"initial_checkpoint={weights}"))
    assert "points that the base loses without a block, the least: " in done.out
    assert len(table(tmp_path / "s")) == 1
    assert (tmp_path / "s" / "sensitivity.csv").read_text() == (output / "sensitivity.csv").read_text()


def test_candidates_inherit_the_weights_that_the_recipe_names(found, tmp_path):
    output, _ = found
    weights = base_weights(output)
    more = ["--set", f"initial_checkpoint={weights}", "--set", "epochs=1", "--set", "lr=1e-6", "--early-stop", "none"]
    run(cp_search(tmp_path / "i", 4, *more))
    first = float(table(tmp_path / "i")[0]["accuracy"])
    # Hardly trained, the base has what it had.
    assert abs(first - float(table(output)[0]["accuracy"])) < 3
    assert all(float(row["accuracy"]) > 15 for row in table(tmp_path / "i"))


def test_shared_weights_and_finalists(here, tmp_path):
    done = run(cp_search(tmp_path / "s", 6, "--evaluator", "supernet", "--supernet-epochs", "2"))
    rows = table(tmp_path / "s")
    assert "shared weights" in done.stderr
    trained = [row for row in rows if row["mean_accuracy"]]
    assert 2 <= len(trained) < len(rows)
    metrics = json.loads((tmp_path / "s" / "best" / "metrics.json").read_text())
    assert metrics["mean_validation_top1"] == max(
        float(row["mean_accuracy"]) for row in trained if row["number"] != "0"
    )
    assert metrics["validation_top1"] == max(metrics["validation_top1_by_seed"].values())
    assert accuracy_by_hand(tmp_path / "s" / "best") == metrics["test_top1"]
    # Another is trained where it is exported, and has the accuracy of what is exported.
    other = next(row for row in rows if not row["mean_accuracy"])
    here(["cp-search", "export", str(tmp_path / "s"), other["number"], "--output", str(tmp_path / "other")])
    search = Search(load_config(tmp_path / "s"))
    model = timm.create_model(f"local-dir:{tmp_path / 'other'}", pretrained=True)
    exported = json.loads((tmp_path / "other" / "metrics.json").read_text())["validation_top1"]
    assert exported == search.trainer.score(model, search.held_out)
    assert f"| {exported:.2f} % |" in (tmp_path / "other" / "README.md").read_text()


def test_a_finished_search_is_not_run_again(found, here):
    output, _ = found
    before = {path: path.read_bytes() for path in output.rglob("*.safetensors")}
    rows = table(output)
    done = here(cp_search(output, 6))
    assert table(output) == rows
    assert {path: path.read_bytes() for path in output.rglob("*.safetensors")} == before
    assert "winner" in done.out


def test_killed_at_any_moment_it_goes_on_to_the_same_end(found, tmp_path):
    """The same seed gives the same study, byte by byte, also in several runs."""
    output, _ = found
    rng = random.Random(0)
    folder = tmp_path / "killed"
    for _ in range(5):
        process = commands.start(cp_search(folder, 6))
        # Wait for the folder, then kill at some moment of what comes next.
        while process.is_running and not folder.exists():
            time.sleep(0.01)
        if process.wait(rng.uniform(0, 4)) is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    run(cp_search(folder, 6))
    assert table(folder) == table(output)
    one, two = ((f / "best" / "model.safetensors").read_bytes() for f in (output, folder))
    assert one == two
    assert {path.name for path in folder.iterdir()} == {path.name for path in output.iterdir()}


def test_killed_six_times_within_its_first_candidate_it_comes_to_the_same_end(tmp_path):
    """As on a machine that is taken away again and again before a candidate is done."""
    long = [*SMALL, "--set", "epochs=8", "--seeds", "1"]
    run(cp_search(tmp_path / "whole", 2, base=long))
    folder, rng = tmp_path / "killed", random.Random(1)
    for _ in range(6):
        before = states(folder)
        process = commands.start(cp_search(folder, 2, base=long))
        # Once it has got further than the one before it, at some moment of what comes next.
        while process.is_running and states(folder) == before:
            time.sleep(0.01)
        assert process.wait(rng.uniform(0, 0.4)) is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / "pareto.csv").exists()
    run(cp_search(folder, 2, base=long))
    assert table(folder) == table(tmp_path / "whole")
    one, two = ((f / "best" / "model.safetensors").read_bytes() for f in (folder, tmp_path / "whole"))
    assert one == two
    assert not (folder / ".training").exists()


def states(folder):
    """The states of trainings that are kept in a search's folder: which file was put there last."""
    return {path: path.stat().st_mtime_ns for path in folder.glob(".training/*/checkpoint.pt")}


def test_ctrl_c_leaves_a_study_that_the_same_command_continues(found, tmp_path):
    output, _ = found
    folder = tmp_path / "stopped"
    process = commands.start(cp_search(folder, 6))
    while process.is_running and not ((folder / "pareto.csv").exists() and len(table(folder)) >= 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    done = process.wait()
    assert done.returncode == 130
    assert "The same command goes on: cp-search test_vit2" in done.stderr
    assert "Traceback" not in done.stderr
    assert 2 <= len(table(folder)) < 6
    assert (folder / "report.html").exists()
    assert not (folder / "best").exists()
    run(cp_search(folder, 6))
    assert table(folder) == table(output)


def test_a_convnet_by_changing_the_base_alone(here, tmp_path):
    # The recipe's Muon takes minutes for the matrices of a ResNet.
    settings = ("epochs=1", "drop_path=0.1", "opt=adamw", "lr=0.001")
    base = ["resnet18", "--model-kwargs", "channels=[16, 32, 64, 128]", "--budget", "0.8x"]
    base += ["--seeds", "1"]
    base += (part for value in settings for part in ("--set", value))
    run(cp_search(tmp_path / "resnet", 3, base=base))
    rows = table(tmp_path / "resnet")
    assert len(rows) >= 3
    metrics = json.loads((tmp_path / "resnet" / "best" / "metrics.json").read_text())
    assert accuracy_by_hand(tmp_path / "resnet" / "best") == metrics["test_top1"]
    scored = here(shlex.split(metrics["score_command"]))
    assert f"top-1 {metrics['test_top1']:.2f} %" in scored.out


def test_the_test_split_is_touched_once_at_the_end(tmp_path):
    class Watched(Digits):
        """The test split; counts who looks at it and what was finished then."""

        looks = 0
        finished = -1

        def __getitem__(self, index):
            Watched.looks += 1
            assert len(table(tmp_path)) == Watched.finished or Watched.finished == -1
            Watched.finished = len(table(tmp_path))
            return super().__getitem__(index)

    def search():
        made = Search(
            SearchConfig(
                base="test_vit2",
                budget="0.8x",
                model_kwargs={"patch_size": 16, "depth": 4, "init_values": 1.0},
                overrides=("epochs=1", "opt=adamw", "lr=0.004"),
                trials=5,
                finalists=1,
                seeds=2,
                output=tmp_path,
            )
        )
        made.test_set = Images(Watched(train=False), "RGB")
        return made

    results = search().run()
    roles = {results.best, 0, *(results.pair or ())}
    assert {number: set(by_seed) for number, by_seed in results.test_accuracy.items()} == {n: {0, 1} for n in roles}
    assert Watched.looks == 2 * 360 * len(roles)
    assert Watched.finished == len(results.candidates)
    search().run()
    assert Watched.looks == 2 * 360 * len(roles)


def test_a_full_disk_loses_no_finished_trial(tmp_path):
    changes = {"base": "test_vit2", "budget": "0.8x", "overrides": ("epochs=1", "batch_size=512", "opt=adamw")}
    config = SearchConfig(**changes, seeds=1, output=str(tmp_path), trials=2)
    before = Search(config).run().candidates
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for the record, none for weights.
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(
            CommandError, match=r"can't write into .*/\.training/.*; make room and run the same command"
        ):
            Search(config.with_values(trials=4)).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in (tmp_path / "weights").iterdir() if path.name.startswith(".")]
    after = Search(config.with_values(trials=4)).run().candidates
    assert after[: len(before)] == before
    assert len(after) >= 4
    assert all(c.state != "failed" for c in after)
