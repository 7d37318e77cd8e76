"""Whatever stops a training, it comes to the same end."""

import os
import shutil

import pytest
import torch
from digits_folder import FOLDER, SMALL, sets
from mistakes import assert_one_line_mistake
from safetensors.torch import load_file
from training_process import start, train_until

from cp_vision import UserError
from cp_vision.recipes.cli import main
from cp_vision.recipes.run.checkpoints import load_state, save_state

MIXED = ["mixup=0.2", "cutmix=0.5", "reprob=0.3", "drop_path=0.2", "color_jitter=0.3", "hflip=0.5"]


def weights_of(folder):
    return {path.parent.name: load_file(path) for path in sorted(folder.glob("*/model.safetensors"))}


@pytest.mark.slow
def test_killed_at_any_moment_a_training_ends_with_the_same_weights(tmp_path):
    settings = ["model=cp_test_resnet", "model_kwargs={}", "workers=1", *MIXED, "model_ema=true", "model_ema_decay=0.9"]
    # The recipe's Muon takes most of the time of convolutions; test_an_unreadable_checkpoint_loses_nothing has it.
    settings += ["opt=adamw", "lr=0.002"]
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
        process = start(train_until, *moment, killed)
        process.join()
        assert process.exitcode == -9, moment
    assert main(killed) == 0
    one, other = weights_of(whole), weights_of(tmp_path / "killed")
    assert one.keys() == other.keys() >= {"best", "last"}
    for name, tensors in one.items():
        assert all(torch.equal(value, other[name][key]) for key, value in tensors.items())
    for name in ("log.csv", "summary.json", "recipe.yaml"):
        assert (whole / name).read_text() == (tmp_path / "killed" / name).read_text()


def test_an_unreadable_checkpoint_loses_nothing(image_folder, tmp_path, capsys):
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    settings = [*FOLDER, "epochs=2", "recovery_interval=2"]
    command = ["default", "--data-dir", str(image_folder), *sets(settings), "--output"]
    assert main([*command, str(whole)]) == 0
    shutil.copytree(whole, damaged)
    (damaged / "summary.json").unlink()
    (damaged / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes()[:1000])
    capsys.readouterr()
    assert main([*command, str(damaged)]) == 0
    assert f"{damaged / 'checkpoint.pt'}" in capsys.readouterr().err
    one, other = weights_of(whole)["last"], weights_of(damaged)["last"]
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    (damaged / "summary.json").unlink()
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (damaged / name).write_bytes(b"no checkpoint")
    names = ["checkpoint.pt", "checkpoint.previous.pt", "--output"]
    assert_one_line_mistake(main, [*command, str(damaged)], capsys, names)


def test_a_checkpoint_of_another_model_is_refused(folder_training, tmp_path, capsys):
    """As where a local-dir: folder that a recipe names was replaced by another model's."""
    folder, recipe, _ = folder_training
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "summary.json").unlink()
    state, _ = load_state(folder)
    state["model"]["head.weight"] = state["model"]["head.weight"][:, :-1]
    save_state(state, tmp_path / "other")
    before = (tmp_path / "other" / "checkpoint.pt").read_bytes()
    command = ["default", "--data-dir", recipe.data_dir, *sets(FOLDER), "--output", str(tmp_path / "other")]
    assert_one_line_mistake(main, command, capsys, ["head.weight", "--output"])
    assert (tmp_path / "other" / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"progress": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        load_state(tmp_path)
    assert not (tmp_path / "ran").exists()
