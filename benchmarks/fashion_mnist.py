"""Fashion-MNIST for the benchmarks: its files, and all of it in memory."""

from __future__ import annotations

import gzip
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.datasets import FashionMNIST

from cp_vision.recipes import Recipe

__all__ = ["InMemoryLoader", "accuracy", "fill", "open_split", "resize"]

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_MEAN, _STD = 0.286, 0.353


def fill(data_dir: Path) -> None:
    """Unpack the files of Debian's package dataset-fashion-mnist, where it is installed, so nothing is downloaded."""
    raw = data_dir / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for packed in _DEBIAN.glob("*.gz"):
        if not (raw / packed.stem).exists():
            unfinished = raw / f".{packed.stem}"
            with gzip.open(packed) as source, unfinished.open("wb") as target:
                shutil.copyfileobj(source, target)
            unfinished.rename(raw / packed.stem)


def open_split(data_dir: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Normalised images (N, 1, 28, 28) and their classes (N,)."""
    split = FashionMNIST(str(data_dir), train=train, download=True)
    return (split.data[:, None].float() / 255 - _MEAN) / _STD, split.targets


class InMemoryLoader:
    """Training batches for a ``Trainer``, cut, flipped and resized as tensors: a tenth of the time that PIL takes.

    A batch depends on seed, epoch and place alone, so all models of a seed see the same ones.

    Args:
        images: (N, 1, H, W), normalised.
        targets: (N,).
        size: side of a batch's images in pixels.
        recipe: says the images of an update (the rest of an epoch is left out), the seed, and what is cut out.
    """

    unreadable = None
    share = SimpleNamespace(count=1)

    def __init__(self, images: Tensor, targets: Tensor, size: int, recipe: Recipe) -> None:
        self.images, self.targets, self.size, self.recipe = images, targets, size, recipe
        self.batch_size, self.updates = recipe.batch_size, len(images) // recipe.batch_size

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from update ``first`` on: (B, 1, size, size) and (B,)."""
        generator = torch.Generator().manual_seed(1000 * self.recipe.seed + epoch)
        order = torch.randperm(len(self.images), generator=generator)
        for update in range(self.updates):
            chosen = order[update * self.batch_size : (update + 1) * self.batch_size]
            where = _random_crops(len(chosen), self.recipe.scale, self.recipe.ratio, generator)
            if update >= first:
                yield _cut(self.images[chosen], where, self.size), self.targets[chosen]


def _random_crops(count: int, scale: Sequence[float], ratio: Sequence[float], generator: torch.Generator) -> Tensor:
    """Affine maps (count, 2, 3): shares of the area and ratios of the sides as given, half of them flipped."""
    area, aspect, x, y, flip = torch.rand(5, count, generator=generator)
    (small, large), (narrow, wide) = scale, (math.log(bound) for bound in ratio)
    area, aspect = small + (large - small) * area, torch.exp(narrow + (wide - narrow) * aspect)
    width, height = ((area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1))
    where = torch.zeros(count, 2, 3)
    where[:, 0, 0], where[:, 1, 1] = width * torch.where(flip < 0.5, -1.0, 1.0), height
    where[:, 0, 2], where[:, 1, 2] = (1 - width) * (2 * x - 1), (1 - height) * (2 * y - 1)
    return where


def _cut(images: Tensor, where: Tensor, size: int) -> Tensor:
    grid = F.affine_grid(where, [len(images), 1, size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)


def resize(images: Tensor, size: int) -> Tensor:
    """Whole images (N, 1, H, W) as the models are tested on them, (N, 1, size, size)."""
    if images.shape[2:] == (size, size):
        return images
    return _cut(images, torch.eye(2, 3).expand(len(images), 2, 3), size)


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, targets: Tensor, size: int) -> float:
    """Top-1 accuracy in percent of images (N, 1, H, W), resized to ``size`` pixels; the model is in eval mode after."""
    model.eval()
    right = 0
    for begin in range(0, len(images), 250):
        batch = resize(images[begin : begin + 250], size)
        right += int((model(batch).argmax(1) == targets[begin : begin + 250]).sum())
    return 100 * right / len(images)
