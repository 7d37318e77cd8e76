"""The folder of a training: its own, one at a time, whole."""

import errno
import fcntl
import multiprocessing
import os
import resource

import pytest
import torch
from digits_folder import FOLDER, sets
from mistakes import assert_one_line_mistake

from cp_vision import UserError
from cp_vision.recipes import Training, load_recipe
from cp_vision.recipes.cli import main
from cp_vision.recipes.run.checkpoints import load_state, save_state
from cp_vision.recipes.run.output_folder import alone_in
from cp_vision.shared.command_line import CommandError


@pytest.fixture
def tiny(image_folder):
    """A training of three updates."""
    return [*FOLDER, "epochs=1", "warmup_epochs=0", "opt=adamw", f"data_dir={image_folder}"]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("lr=0.5", ["lr", "0.02", "0.5"]),
        ("model=cp_resnet18", ["model", "'cp_test_vit2'", "'cp_resnet18'"]),
        ("num_classes=12", ["num_classes", "None", "12"]),
    ],
)
def test_another_training_is_not_mixed_in(change, names, trained, capsys):
    folder, command = trained
    before = files_of(folder)
    assert_one_line_mistake(main, [*command, "--set", change], capsys, [str(folder), "--output", *names])
    assert files_of(folder) == before


def test_a_folder_of_something_else_is_left_alone(trained, tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("dear")
    assert_one_line_mistake(main, [*trained[1][:-1], str(tmp_path)], capsys, [str(tmp_path), "--output"])
    assert files_of(tmp_path) == {"letter.txt": b"dear"}


def test_of_two_that_train_into_one_folder_the_second_is_told(tiny, tmp_path, capsys):
    command = ["default", *sets(tiny), "--output", str(tmp_path)]
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()

    def hold():
        with alone_in(tmp_path):
            held.set()
            done.wait()

    other = context.Process(target=hold, daemon=True)
    other.start()
    assert held.wait(60)
    assert_one_line_mistake(main, command, capsys, [str(tmp_path), "--output"])
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    done.set()
    other.join()
    (tmp_path / ".log.csv.1-1.unfinished").write_text("left by a kill")
    assert main(command) == 0
    assert {path.name for path in tmp_path.glob(".*")} == {".lock"}


def test_one_that_was_set_up_before_another_trained_there_looks_again(tiny, tmp_path):
    recipe = load_recipe("default", tiny)
    first, same, other = (Training(one, tmp_path) for one in (recipe, recipe, recipe.with_values(lr=0.001)))
    first.run()
    held = files_of(tmp_path)
    for late, message in ((same, "same command"), (other, "with lr ")):
        with pytest.raises(UserError, match=message):
            late.run()
    assert files_of(tmp_path) == held


def test_a_file_system_without_locks_does(tiny, tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", without)
    assert Training(load_recipe("default", tiny), tmp_path).run()["epochs"] == 1


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(tiny, tmp_path, capsys):
    save_state({"progress": {"update": 1}}, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CommandError, match=str(tmp_path)):
            save_state({"progress": {"update": 2}, "model": torch.zeros(1_000_000)}, tmp_path)
        # Models are written by another library.
        assert main(["default", *sets(tiny), "--output", str(tmp_path / "out")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path / "out") in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".lock"]
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint.pt"]
    assert load_state(tmp_path)[0]["progress"] == {"update": 1}
