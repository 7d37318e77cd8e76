"""One real step of a recipe on synthetic images: what a full run would take."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cp_vision import count_macs
from cp_vision.errors import UserError, one_line

from .data import count_classes, open_split
from .models import build_model, data_config, load_teacher, model_args
from .order import Share
from .processes import Processes, single_process
from .schema import Recipe
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
        pixels: size of the training images.
        images: images of the step that was taken.
        batch: images of the recipe's update.
        memory: bytes that the step took at its highest, on the device.
        seconds: seconds of the step.
        loss: its loss.
        dataset: training images of an epoch.
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
    hours: float


def dry_run(recipe: Recipe) -> DryRun:
    """Take two updates of a recipe on random images, the second of which is measured.

    A step is taken with fewer images than the recipe's batch where the device has no room for it (on a GPU, half
    as many until it fits; on a CPU at most 2).

    Args:
        recipe: the recipe. With a data set its number of images and classes is taken, without one those of
            ImageNet-1k.

    Raises:
        UserError: the model can't be had, or the step fails.
    """
    processes = single_process()
    images, classes = IMAGES, recipe.num_classes or CLASSES
    if recipe.dataset == "digits" or recipe.data_dir is not None:
        dataset = open_split(recipe, recipe.train_split)
        images, classes = len(dataset), count_classes(dataset, recipe)
    args = model_args(recipe.model, recipe, classes, recipe.model_kwargs)
    size = min(recipe.batch_size, CPU_IMAGES) if processes.device.type == "cpu" else recipe.batch_size
    while True:
        # Weights change neither memory nor time, and may not be there yet.
        model = build_model(recipe.model, args)
        config = data_config(model, recipe)
        try:
            seconds, memory, loss = _measure(model, recipe, config, classes, processes, size)
        except torch.OutOfMemoryError:
            if size <= 2:
                raise UserError(f"{recipe.model} doesn't fit into this device's memory with 2 images") from None
            size //= 2
            continue
        except UserError:
            raise
        except Exception as error:
            # Whatever a value of the recipe makes timm or torch raise.
            raise UserError(f"a step fails: {type(error).__name__}: {one_line(error)}") from error
        break
    channels, height, width = config["input_size"]
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
        hours=seconds / size * images * recipe.epochs / 3600,
    )


def _measure(
    model: Any, recipe: Recipe, config: dict[str, Any], classes: int, processes: Processes, size: int
) -> tuple[float, int, float]:
    """Seconds, bytes and loss of an update with ``size`` images."""
    device = processes.device
    loader: Any = _Synthetic(recipe, config, classes, device, size)
    teacher = load_teacher(recipe, classes, pretrained=False)
    trainer = Trainer(model, recipe, loader, processes, teacher, config)
    # The first one compiles, allocates, and finds out which kernels are fast.
    trainer.one_update()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    loss = trainer.one_update()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    if device.type == "cuda":
        return seconds, torch.cuda.max_memory_allocated(device), loss
    # Kilobytes, of the whole process.
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, loss


class _Synthetic:
    """A training loader of random images."""

    updates = 1

    def __init__(self, recipe: Recipe, config: dict[str, Any], classes: int, device: torch.device, size: int) -> None:
        self.recipe, self.shape, self.classes, self.device = recipe, (size, *config["input_size"]), classes, device
        # Micro-batches follow one another, so one of them says how long all take.
        self.share = Share(size, 1, 1)

    def epoch(self, epoch: int, first: int = 0) -> Any:
        generator = torch.Generator().manual_seed(epoch)
        images = torch.randn(self.shape, generator=generator).to(self.device)
        targets: Tensor = torch.randint(self.classes, self.shape[:1], generator=generator)
        if self.recipe.mixes:
            targets = torch.nn.functional.one_hot(targets, self.classes).float()
        yield images, targets.to(self.device)
