"""One real step of a recipe on synthetic images: what a full run would take."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cp_vision import count_macs
from cp_vision.shared.errors import UserError

from ..data.open import count_classes, open_split
from ..data.sampler import Share
from ..models import build_model, data_config, model_args
from ..processes import Processes, single_process
from ..recipe.checks import check_splits
from ..recipe.keys import Recipe
from .first_step import first_step
from .trainer import Trainer

__all__ = ["DryRun", "dry_run"]

# Of ImageNet-1k, for recipes that are run without a data set.
IMAGES, CLASSES = 1_281_167, 1000
# Images that a CPU is given at a time: enough for a time per image, and not long where bfloat16 is slow.
CPU_IMAGES = 2


@dataclass(frozen=True)
class DryRun:
    """What one step says.

    Attributes:
        macs: MACs of one image, forward.
        params: parameters.
        pixels: height and width of the training images.
        images: images of the step that was taken.
        batch: images of the recipe's update.
        memory: bytes that the step took at its highest, on the device; on a CPU those of the whole process.
        seconds: seconds of the step.
        loss: its loss.
        dataset: training images of an epoch.
        assumed: whether these are ImageNet's, as the recipe was run without a data set.
        hours: projected hours of all epochs, on this device.
    """

    macs: int
    params: int
    pixels: tuple[int, int]
    images: int
    batch: int
    memory: int
    seconds: float
    loss: float
    dataset: int
    assumed: bool
    hours: float


def dry_run(recipe: Recipe) -> DryRun:
    """Take a few updates of a recipe on random images and measure them.

    A step is taken with fewer images than the recipe's batch where the device has no room for it (on a GPU, half
    as many until it fits; on a CPU at most 2).

    Args:
        recipe: the recipe. Of the data set that it names, or of its folder, the number of images and classes is taken;
            where it has neither, those of ImageNet-1k.

    Raises:
        UserError: the model or the data set can't be had, the data set's folder is not told, or the step fails.
    """
    check_splits(recipe)
    processes = single_process()
    images, classes = IMAGES, recipe.num_classes or CLASSES
    assumed = not recipe.dataset and recipe.data_dir is None
    if not assumed:
        dataset = open_split(recipe, recipe.train_split)
        images, classes = len(dataset), count_classes(dataset, recipe)
    args = model_args(recipe.model, recipe, classes, recipe.model_kwargs)
    size = min(recipe.batch_size, CPU_IMAGES) if processes.device.type == "cpu" else recipe.batch_size
    while True:
        # Weights change neither memory nor time, and may not be there yet.
        model = build_model(recipe.model, args)
        config = data_config(model, recipe)
        try:
            with first_step(torch.OutOfMemoryError):
                seconds, twice, memory, loss, epochs = _measure(model, recipe, config, processes, size)
        except torch.OutOfMemoryError:
            if size <= 2:
                raise UserError(f"{recipe.model} doesn't fit into this device's memory with 2 images") from None
            size //= 2
            continue
        break
    channels, height, width = config["input_size"]
    # An update is many micro-batches and one step of the optimiser.
    micro = min(max(twice - seconds, 0.0), seconds)
    whole = micro / size * images + (seconds - micro) * (images // recipe.update_size)
    return DryRun(
        macs=count_macs(model, (channels, height, width)),
        params=sum(parameter.numel() for parameter in model.parameters()),
        pixels=(height, width),
        images=size,
        batch=recipe.update_size,
        memory=memory,
        seconds=seconds,
        loss=loss,
        dataset=images,
        assumed=assumed,
        hours=whole * epochs / 3600,
    )


def _measure(
    model: Any, recipe: Recipe, config: dict[str, Any], processes: Processes, size: int
) -> tuple[float, float, int, float, int]:
    """Seconds of updates with one and with two micro-batches of ``size``, bytes, loss, and epochs of the schedule."""
    device = processes.device
    loader: Any = _Synthetic(recipe, config, model.num_classes, device, size)
    trainer = Trainer(model, recipe, loader, processes, teacher_weights=False)
    # The first one compiles, allocates, and finds out which kernels are fast.
    trainer.one_update()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, loss = _time(trainer, device)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_memory()
    loader.share = Share(size, 2, 1)
    twice, _ = _time(trainer, device)
    return seconds, twice, memory, loss, trainer.epochs


def resident_memory() -> int:
    """The most memory that this process has taken so far, in bytes."""
    # In kilobytes, but for macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _time(trainer: Trainer, device: torch.device) -> tuple[float, float]:
    """Seconds and loss of an update."""
    start = time.perf_counter()
    # The loss is read, so a GPU has come to the end of it, but for the step.
    loss = trainer.one_update()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, loss


class _Synthetic:
    """A training loader of random images."""

    updates, unreadable = 1, ()

    def __init__(self, recipe: Recipe, config: dict[str, Any], classes: int, device: torch.device, size: int) -> None:
        self.recipe, self.shape, self.classes, self.device = recipe, (size, *config["input_size"]), classes, device
        self.share = Share(size, 1, 1)

    def epoch(self, epoch: int, first: int = 0) -> Any:
        generator = torch.Generator().manual_seed(epoch)
        images = torch.randn(self.shape, generator=generator).to(self.device)
        targets: Tensor = torch.randint(self.classes, self.shape[:1], generator=generator)
        if self.recipe.mixes:
            targets = torch.nn.functional.one_hot(targets, self.classes).float()
        for _ in range(self.share.count):
            yield images, targets.to(self.device)
