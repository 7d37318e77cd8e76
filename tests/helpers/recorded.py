"""Trainings whose runs of wandb are recorded, whether it is installed or not."""

import contextlib
import sys
from pathlib import Path
from unittest import mock


@contextlib.contextmanager
def recorded_wandb():
    """Give a list that every run of wandb is added to."""
    modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] != "wandb"}
    path = [str(Path(__file__).with_name("recorded_wandb")), *sys.path]
    with mock.patch.dict(sys.modules, modules, clear=True), mock.patch.object(sys, "path", path):
        import wandb

        yield wandb.runs
