"""The folder of a training."""

import errno
import fcntl
import os
import resource
import subprocess
import sys

import pytest
import torch
from digits_folder import SMALL, sets

from cp_vision import UserError
from cp_vision.recipes import Training, load_recipe
from cp_vision.recipes.cli import main
from cp_vision.recipes.run.checkpoints import load_state, save_state
from cp_vision.shared.command_line import CommandError


def test_another_training_is_not_mixed_in(trained, capsys, tmp_path):
    folder, command = trained
    before = (folder / "checkpoint.pt").read_bytes()
    for change, message in (
        ("lr=0.5", "holds a training with lr 0.02, this one has 0.5; choose another --output"),
        ("model=cp_resnet18", "holds a training with model 'cp_test_vit2', this one has 'cp_resnet18'"),
        ("num_classes=12", "holds a training with num_classes None, this one has 12"),
    ):
        assert main([*command, "--set", change]) == 2
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1
        assert any(part in error[0] for part in message.split("|")), error
    assert (folder / "checkpoint.pt").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    assert main([*command[:-1], str(tmp_path / "other")]) == 2
    assert "is there and holds no training; choose another --output" in capsys.readouterr().err


HOLD = """
import sys
from pathlib import Path
from cp_vision.recipes.run.output_folder import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_of_two_that_train_into_one_folder_the_second_is_told(tmp_path, capsys):
    command = ["digits", *sets([*SMALL, "epochs=1", "batch_size=512"]), "--output", str(tmp_path)]
    other = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert main(command) == 2
        assert "another process is training there; wait for it" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        process.stdin.close()
    (tmp_path / ".log.csv.1-1.unfinished").write_text("left by a kill")
    assert main(command) == 0
    assert {path.name for path in tmp_path.glob(".*")} == {".lock"}


def test_one_that_was_set_up_before_another_trained_there_looks_again(tmp_path):
    recipe = load_recipe("digits", [*SMALL, "epochs=1", "batch_size=512"])
    first, same, other = (Training(one, tmp_path) for one in (recipe, recipe, recipe.with_values(lr=0.001)))
    first.run()
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for late, message in ((same, "has trained there meanwhile; run the same command again"), (other, "with lr ")):
        with pytest.raises(UserError, match=message):
            late.run()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == held


def test_a_file_system_without_locks_does(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", without)
    recipe = load_recipe("digits", [*SMALL, "epochs=1", "batch_size=512"])
    assert Training(recipe, tmp_path).run()["epochs"] == 1


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(tmp_path, capsys):
    save_state({"progress": {"update": 1}}, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CommandError, match=r"can't write into .*; make room and run the same command again"):
            save_state({"progress": {"update": 2}, "model": torch.zeros(1_000_000)}, tmp_path)
        # Models are written by another library.
        settings = [*SMALL, "model=cp_test_vit", "model_kwargs={}", "epochs=1", "batch_size=512"]
        assert main(["digits", *sets(settings), "--output", str(tmp_path / "out")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "can't write into " in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".lock"]
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint.pt"]
    assert load_state(tmp_path)[0]["progress"] == {"update": 1}
