"""The batches of a training."""

import signal
import subprocess
import sys

import pytest
import torch
from digits_folder import CPU, digits, parts

from cp_vision.recipes import Recipe
from cp_vision.recipes.data.failures import is_killed_worker
from cp_vision.recipes.data.training_loader import data_loader

MIXED = ["mixup=0.2", "cutmix=0.5", "reprob=0.3", "drop_path=0.2", "color_jitter=0.3", "hflip=0.5"]


@pytest.mark.parametrize("settings", [[], MIXED])
def test_batches_depend_on_their_place_alone(settings):
    seen = {}
    for workers in (0, 2):
        recipe = digits(*settings, f"workers={workers}")
        _, loader, _ = parts(recipe, images=512)
        for epoch, first in ((0, 0), (1, 0), (1, 6)):
            batches = list(loader.epoch(epoch, first))
            assert len(batches) == loader.updates - first
            for number, (images, targets) in enumerate(batches, first):
                one = seen.setdefault((epoch, number), (images, targets))
                assert torch.equal(one[0], images)
                assert torch.equal(one[1], targets)
    assert not torch.equal(seen[0, 3][0], seen[1, 3][0])


def test_mixing_ends_where_the_recipe_says():
    _, loader, _ = parts(images=512, recipe=digits("mixup=0.2", "mixup_off_epoch=1", "smoothing=0", "workers=1"))
    for epoch in (0, 1):
        # Also for workers that are there since the first epoch.
        mixed = any(((targets > 0) & (targets < 1)).any() for _, targets in loader.epoch(epoch))
        assert mixed is (epoch == 0)


KEPT = """
import sys
from cp_vision.recipes import Recipe, single_process
from cp_vision.recipes.data.training_loader import data_loader

# As after an error that nobody caught: Python keeps its traceback.
sys.last_value = iter(data_loader(range(4), Recipe(workers=1), single_process()))
print(next(sys.last_value))
"""


@pytest.mark.slow
def test_a_loader_that_is_kept_to_the_end_does_not_keep_python_from_ending():
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "tensor([0])\n", "")


def test_of_a_worker_that_ends_while_it_sends_torchs_word_is_waited_for(monkeypatch):
    def reset(loader):
        # Torch's handler is called once the system tells of the worker's end.
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        raise ConnectionResetError
        yield

    def handler(number, frame):
        raise RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. ")

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", reset)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(RuntimeError) as error:
            list(data_loader(range(4), Recipe(workers=1), CPU))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert is_killed_worker(error.value)
