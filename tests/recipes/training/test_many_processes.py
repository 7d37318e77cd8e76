"""Trainings of several processes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import numpy as np
import pytest
from digits_folder import CPU, SMALL, parts, sets, write_folder
from mistakes import assert_one_line_mistake
from training_process import meeting, start

from cp_vision.recipes import Trainer, joined_processes, load_recipe
from cp_vision.recipes.cli import main


def losses_of(recipe, processes):
    """The losses of an epoch."""
    model, loader, _ = parts(recipe, processes)
    losses = []
    Trainer(model, recipe, loader, processes).train_epoch(losses.append)
    return losses


def write_losses(recipe, path):
    with joined_processes() as processes:
        losses = losses_of(recipe, processes)
        if processes.primary:
            path.write_text(json.dumps(losses))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["mixup=0.2", "cutmix=0.5", "aug_repeats=3"],
        ["model=cp_test_resnet", "model_kwargs={}", "batch_size=32", "grad_accum_steps=2", "dist_bn=reduce"],
    ],
)
def test_two_processes_and_one_have_the_same_losses(settings, tmp_path):
    recipe = load_recipe("digits", [*SMALL, "opt=sgd", "lr=0.05", "warmup_epochs=0", *settings])
    one = losses_of(recipe, CPU)
    path = tmp_path / "losses.json"
    for process in [start(write_losses, recipe, path, **environment) for environment in meeting(2)]:
        process.join()
        assert process.exitcode == 0
    two = json.loads(path.read_text())
    assert len(one) == len(two) >= 20
    assert np.abs(np.subtract(one, two)).max() < 1e-4
    assert one[-1] < one[0]


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does_and_either_goes_on_for_the_other(tmp_path, capsys):
    settings = ["epochs=2", "batch_size=128", "model_ema=true", "model_ema_decay=0.9", "recovery_interval=4"]
    train = ["digits", *sets([*SMALL, *settings]), "--output"]
    assert main([*train, str(tmp_path / "one")]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [*torchrun, str(Path(sys.executable).with_name("cp-train")), *train, str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Load it:") == 1
    # A killed one: from its checkpoint in the middle of the second epoch.
    shutil.copytree(tmp_path / "two", tmp_path / "both")
    (tmp_path / "both" / "summary.json").unlink()
    (tmp_path / "both" / "checkpoint.previous.pt").replace(tmp_path / "both" / "checkpoint.pt")
    assert main([*train, str(tmp_path / "both")]) == 0
    logs = {name: tmp_path / name / "log.csv" for name in ("one", "two", "both")}
    rows = {name: np.genfromtxt(path, delimiter=",", names=True) for name, path in logs.items()}
    for name in ("two", "both"):
        assert np.abs(rows[name]["train_loss"] - rows["one"]["train_loss"]).max() < 1e-3
        assert np.abs(rows[name]["top1"] - rows["one"]["top1"]).max() < 1.5
    assert_one_line_mistake(main, [*train, str(tmp_path / "two"), "--set", "lr=0.5"], capsys, ["0.02", "0.5"])


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["01", "1"])
def test_a_data_folder_that_some_processes_lack_is_one_line_of_the_first(missing, tmp_path):
    for rank in "01":
        (tmp_path / rank).mkdir()
        if rank not in missing:
            write_folder(tmp_path / rank / "data")
    command = ["cp-train", "default", "--data-dir", "data"]
    runs = [commands.start(command, tmp_path / each["RANK"], each) for each in meeting(2)]
    first, second = (run.wait(300) for run in runs)
    assert first.returncode == second.returncode == 2
    (error,) = first.stderr.splitlines()
    assert re.fullmatch("cp-train: error: .*'data'.*", error)
    assert second.stderr == ""
