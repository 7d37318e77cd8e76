"""Trainings of several processes."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from digits_folder import SMALL, sets
from PIL import Image

SINGLE = {**os.environ, "OMP_NUM_THREADS": "1"}


TWO = """
import json, sys
import torch
sys.path.insert(0, sys.argv[1])
from test_training import parts
from cp_vision.recipes import Trainer, joined_processes, load_recipe
torch.set_num_threads(1)
with joined_processes() as processes:
    recipe = load_recipe("digits", sys.argv[3:])
    model, loader, _ = parts(recipe, processes)
    trainer = Trainer(model, recipe, loader, processes)
    losses = []
    trainer.train_epoch(losses.append)
    if processes.primary:
        open(sys.argv[2], "w").write(json.dumps(losses))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["mixup=0.2", "cutmix=0.5", "aug_repeats=3"],
        ["model=cp_test_resnet", "model_kwargs={}", "batch_size=32", "grad_accum_steps=2", "dist_bn=reduce"],
    ],
)
def test_two_processes_and_one_have_the_same_losses(settings, tmp_path):
    settings = [*SMALL, "opt=sgd", "lr=0.05", "warmup_epochs=0", *settings]
    losses = {}
    for count in (1, 2):
        path = tmp_path / f"{count}.json"
        script = tmp_path / "two.py"
        script.write_text(TWO)
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        subprocess.run(
            [*start, str(script), str(Path(__file__).parent), str(path), *settings],
            check=True,
            capture_output=True,
            env=SINGLE,
        )
        losses[count] = json.loads(path.read_text())
    assert len(losses[1]) == len(losses[2]) >= 20
    assert np.abs(np.subtract(losses[1], losses[2])).max() < 1e-4
    assert losses[1][-1] < losses[1][0]


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does_and_either_goes_on_for_the_other(tmp_path):
    settings = sets(
        [*SMALL, "epochs=2", "batch_size=128", "model_ema=true", "model_ema_decay=0.9", "recovery_interval=4"]
    )
    train = [str(Path(sys.executable).with_name("cp-train")), "digits", *settings]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    rows = {}
    for name, starts in {"one": [[]], "two": [torchrun], "both": [torchrun, []]}.items():
        folder = tmp_path / name
        for start in starts:
            if name == "both" and start:
                # A killed one: from its checkpoint in the middle of the second epoch.
                shutil.copytree(tmp_path / "two", folder)
                (folder / "summary.json").unlink()
                (folder / "checkpoint.previous.pt").replace(folder / "checkpoint.pt")
                continue
            run = subprocess.run(
                [*start, *train, "--output", str(folder)], check=False, capture_output=True, text=True, env=SINGLE
            )
            assert run.returncode == 0, run.stderr
            assert run.stdout.count("Load it:") == 1
        rows[name] = np.genfromtxt(folder / "log.csv", delimiter=",", names=True)
    for name in ("two", "both"):
        assert np.abs(rows[name]["train_loss"] - rows["one"]["train_loss"]).max() < 1e-3
        assert np.abs(rows[name]["top1"] - rows["one"]["top1"]).max() < 1.5
    # A mistake is one line of the primary process's, and nobody waits for ever.
    wrong = [*torchrun, *train, "--set", "lr=0.5", "--output", str(tmp_path / "two")]
    run = subprocess.run(wrong, check=False, capture_output=True, text=True, env=SINGLE, timeout=120)
    assert run.returncode != 0
    assert "holds a training with lr 0.02, this one has 0.5" in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["01", "1"])
def test_a_data_folder_that_some_processes_lack_is_one_line_of_each(missing, tmp_path):
    for rank in "01":
        (tmp_path / rank).mkdir()
        if rank not in missing:
            for split in ("train", "val"):
                (tmp_path / rank / "data" / split / "cat").mkdir(parents=True)
                Image.new("L", (8, 8)).save(tmp_path / rank / "data" / split / "cat" / "1.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "cp_vision.recipes.cli", "default", "--data-dir", "data"]
    runs = [
        subprocess.Popen(
            command, cwd=tmp_path / rank, env={**SINGLE, **meeting, "RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    errors = [run.communicate(timeout=120)[1].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [2, 2], errors
    for (error,) in errors:
        assert re.fullmatch("cp-train: error: data folder 'data' doesn't exist; .*", error)
