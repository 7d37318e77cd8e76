"""A training and its run of Weights & Biases."""

import contextlib
import math
import os

import pytest
from commands import run
from digits_folder import FOLDER, sets
from full_disk import no_file_above
from mistakes import assert_one_line_mistake
from recorded import recorded_wandb

from cp_vision.recipes import Training, load_recipe
from cp_vision.recipes.cli import main
from cp_vision.recipes.run import wandb_run
from cp_vision.recipes.run.stop_signals import Stopped, StopSignals


@pytest.fixture
def recipe(image_folder):
    return load_recipe("default", [*FOLDER, f"data_dir={image_folder}", "log_wandb=true", "log_interval=1"])


def stopped(training):
    """Run a training until it is asked to stop, after its first update."""
    stop = StopSignals()
    with pytest.raises(Stopped):
        training.run(lambda trainer, loss: setattr(stop, "number", 15), stop=stop)


def test_a_stopped_training_goes_on_in_the_same_run(recipe, tmp_path):
    with recorded_wandb() as runs:
        stopped(Training(recipe, tmp_path / "run"))
        training = Training(recipe, tmp_path / "run")
        summary = training.run()
    first, second = runs
    assert first.arguments["id"] == second.arguments["id"]
    assert first.arguments["resume"] == "allow"
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert [step for step, _ in first.logged] == [1]
    assert second.logged[0][0] == 2
    assert second.arguments["config"]["lr"] == recipe.lr
    step, last = second.logged[-1]
    assert (step, last["epoch"]) == (training.trainer.epochs * training.loader.updates, summary["epochs"])
    assert last["validation/top1"] == summary["top1"]
    assert math.isfinite(last["train/epoch_loss"])


def test_wandb_is_imported_only_where_it_is_asked_for(recipe, tmp_path):
    with recorded_wandb() as runs:
        Training(recipe.with_values(log_wandb=False), tmp_path / "run").run()
    assert not runs
    assert not (tmp_path / "run" / wandb_run.ID_FILE).exists()


def test_without_wandb_nothing_starts(image_folder, tmp_path, capsys, monkeypatch):
    find = wandb_run.importlib.util.find_spec
    monkeypatch.setattr(wandb_run.importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    command = ["default", *sets([*FOLDER, "log_wandb=true"]), "--data-dir", str(image_folder)]
    output = tmp_path / "run"
    assert_one_line_mistake(main, [*command, "--output", str(output)], capsys, ["log_wandb", "pip install"])
    assert not output.exists()


def test_a_run_that_cannot_begin_is_one_line(recipe, image_folder, tmp_path, capsys):
    settings = [*FOLDER, "log_wandb=true", "wandb_project=refused"]
    command = [
        "default",
        *sets(settings),
        "--data-dir",
        str(image_folder),
        "--quiet",
        "--output",
        str(tmp_path / "run"),
    ]
    with recorded_wandb():
        assert_one_line_mistake(main, command, capsys, ["log_wandb", "not configured", "WANDB_MODE=offline"])


@pytest.mark.parametrize(
    ("project", "size", "words"),
    [
        ("no room", None, "can't write into"),
        # A checkpoint can't be written; what wandb then can't end is not the cause.
        ("any", 100_000, "can't write into"),
        ("endless", 100_000, "can't write into"),
        ("endless", None, "the training is done, but wandb can't end its run: the service ended"),
    ],
)
def test_what_ends_a_training_is_one_line(project, size, words, image_folder, tmp_path, capsys):
    settings = [*FOLDER, "epochs=1", "warmup_epochs=0", "log_wandb=true", f"wandb_project={project}"]
    command = ["default", *sets(settings), "--data-dir", str(image_folder), "--quiet"]
    room = contextlib.nullcontext() if size is None else no_file_above(size)
    with recorded_wandb(), room:
        assert main([*command, "--output", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


# It starts a server of its own.
@pytest.mark.nightly
def test_the_real_one_writes_both_parts_of_a_training_into_one_run(recipe, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    stopped(Training(recipe, tmp_path / "run"))
    Training(recipe, tmp_path / "run").run()
    number = (tmp_path / "run" / wandb_run.ID_FILE).read_text().strip()
    # A folder for each part, or one where both began in the same second.
    folders = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert {folder.name.rpartition("-")[2] for folder in folders} == {number}
    assert all(os.path.getsize(folder / f"run-{number}.wandb") > 100 for folder in folders)


@pytest.mark.nightly
def test_the_real_one_prints_no_traceback_where_there_is_no_room(image_folder, tmp_path):
    pytest.importorskip("wandb")
    command = [
        "cp-train",
        "default",
        *sets([*FOLDER, "epochs=1", "warmup_epochs=0", "log_wandb=true"]),
        "--data-dir",
        str(image_folder),
    ]
    # Less than wandb's own log takes, and less than a checkpoint.
    for size in (1_000, 100_000):
        output = tmp_path / str(size)
        with no_file_above(size):
            done = run([*command, "--quiet", "--output", str(output)], environment={"WANDB_MODE": "offline"})
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "File too large" in line
