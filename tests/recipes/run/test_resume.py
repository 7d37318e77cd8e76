"""Whatever stops a training, it comes to the same end."""

import os
import subprocess
import sys

import pytest
import torch
from digits_folder import SMALL, sets
from safetensors.torch import load_file

from cp_vision import UserError
from cp_vision.recipes.cli import main
from cp_vision.recipes.run.checkpoints import load_state

MIXED = ["mixup=0.2", "cutmix=0.5", "reprob=0.3", "drop_path=0.2", "color_jitter=0.3", "hflip=0.5"]


KILLED = """
import os, signal, sys
import torch
from cp_vision.recipes import cli
from cp_vision.recipes.run import checkpoints, training_run as fit
from cp_vision.recipes.training import trainer

moment, number = sys.argv[1], int(sys.argv[2])
rename = os.replace
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def at(module, name, before):
    real, calls = getattr(module, name), [0]
    def wrapped(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number:
            before(*args, **kwargs)
        return real(*args, **kwargs)
    setattr(module, name, wrapped)
def half(state, file):
    # The first half of what would have been written.
    import io
    whole = io.BytesIO()
    torch.serialization.save(state, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()
    die()
if moment == "update":
    at(trainer.Trainer, "_update", lambda *a: die())
elif moment == "writing":
    at(torch, "save", half)
elif moment == "renaming":
    def replace(source, target):
        if str(target).endswith(sys.argv[3]):
            die()
        rename(source, target)
    os.replace = replace
elif moment == "model":
    at(fit, "save_model", lambda *a: die())
sys.exit(cli.main(sys.argv[4:]))
"""


def weights_of(folder):
    return {path.parent.name: load_file(path) for path in sorted(folder.glob("*/model.safetensors"))}


@pytest.mark.slow
def test_killed_at_any_moment_a_training_ends_with_the_same_weights(tmp_path):
    settings = ["model=cp_test_resnet", "model_kwargs={}", "workers=1", *MIXED, "model_ema=true", "model_ema_decay=0.9"]
    settings += [
        "grad_accum_steps=2",
        "batch_size=32",
        "val_interval=2",
        "sched_on_updates=true",
        "recovery_interval=5",
    ]
    command = ["digits", *sets([*SMALL, *settings])]
    whole = tmp_path / "whole"
    assert main([*command, "--output", str(whole)]) == 0
    killed = [*command, "--output", str(tmp_path / "killed")]
    # Each run goes on from the one before it, so all of these come to pass.
    moments = [
        ("renaming", 1, "recipe.yaml"),
        ("writing", 1, ""),
        ("update", 9, ""),
        ("renaming", 1, "checkpoint.previous.pt"),
        ("model", 2, ""),
        ("renaming", 1, "checkpoint.pt"),
        ("update", 20, ""),
        ("writing", 2, ""),
        ("renaming", 1, "last"),
        ("renaming", 1, "summary.json"),
    ]
    for moment in moments:
        run = subprocess.run(
            [sys.executable, "-c", KILLED, *map(str, moment), *killed], capture_output=True, text=True, check=False
        )
        assert run.returncode == -9, (moment, run.stderr)
    assert main(killed) == 0
    one, other = weights_of(whole), weights_of(tmp_path / "killed")
    assert one.keys() == other.keys() >= {"best", "last"}
    for name, tensors in one.items():
        assert all(torch.equal(value, other[name][key]) for key, value in tensors.items())
    for name in ("log.csv", "summary.json", "recipe.yaml"):
        assert (whole / name).read_text() == (tmp_path / "killed" / name).read_text()


def test_an_unreadable_checkpoint_loses_nothing(tmp_path, capsys):
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    command = ["digits", *sets([*SMALL, "epochs=1", "recovery_interval=10"])]
    assert main([*command, "--output", str(whole)]) == 0
    assert main([*command, "--output", str(damaged)]) == 0
    (damaged / "summary.json").unlink()
    (damaged / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes()[:1000])
    capsys.readouterr()
    assert main([*command, "--output", str(damaged)]) == 0
    assert "checkpoint.pt' can't be read" in capsys.readouterr().err
    one, other = (load_file(folder / "last" / "model.safetensors") for folder in (whole, damaged))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    (damaged / "summary.json").unlink()
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (damaged / name).write_bytes(b"no checkpoint")
    assert main([*command, "--output", str(damaged)]) == 2
    assert "to start again, or choose another --output" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path, capsys):
    """As where a local-dir: folder that a recipe names was replaced by another model's."""
    folder, command = trained
    other = tmp_path / "other"
    assert main([*command[:-1], str(other), "--set", "epochs=1", "--set", "model_kwargs={patch_size: 8}"]) == 0
    (other / "recipe.yaml").write_text((folder / "recipe.yaml").read_text())
    (other / "summary.json").unlink()
    before = (other / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    assert main([*command[:-1], str(other)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is one of another model: " in error
    assert (other / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"progress": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="can't be read"):
        load_state(tmp_path)
    assert not (tmp_path / "ran").exists()
