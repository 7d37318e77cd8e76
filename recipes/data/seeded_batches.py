"""Batches of images for training whose randomness depends on their place in the training alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from timm.data import FastCollateMixup
from timm.data.loader import fast_collate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..recipe.keys import Recipe
from .sampler import Place
from .seeding import random_seeds, seed_all, seed_from
from .unreadable import Unreadable

__all__ = ["SeededBatches", "TrainingBatches", "as_it_is", "mixing"]


class TrainingBatches(Dataset):
    """Reads, augments, mixes and collates micro-batches.

    Args:
        images: the images, with their transform.
        recipe: seed, mixup and cutmix.
        num_classes: number of classes.
    """

    def __init__(self, images: Unreadable, recipe: Recipe, num_classes: int) -> None:
        self.images, self.recipe, self.mixup = images, recipe, mixing(recipe, num_classes)

    def __getitems__(self, places: Sequence[Place]) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) as bytes, and their classes (B,), or shares of classes (B, classes) where they mix."""
        seed, size, samples = self.recipe.seed, self.recipe.update_size, []
        epoch, first, _ = places[0]
        seeds = random_seeds(size, seed, 0, epoch, first // size)
        for _, position, index in places:
            seed_from(seeds[position % size])
            samples.append(self.images.read_near(index))
        if self.mixup is None:
            batch: tuple[Tensor, Tensor] = fast_collate(samples)
            return batch
        self.mixup.mixup_enabled = self.recipe.mixes_in(epoch)
        # A micro-batch that processes share is mixed alike in all its parts, where it is mixed as a whole.
        unit = first // size, first % self.recipe.grad_accum_steps
        seed_all(seed, 1, epoch, *(unit if self.recipe.mixup_mode == "batch" else (first,)))
        batch = self.mixup(samples)
        return batch


class SeededBatches:
    """A loader that seeds this process before each batch: timm's prefetcher erases parts of it on the device.

    Args:
        loader: the loader.
        seed: the recipe's.
        rank: number of this process.
    """

    def __init__(self, loader: DataLoader, seed: int, rank: int) -> None:
        self.loader, self.seed, self.rank, self.epoch, self.first = loader, seed, rank, 0, 0

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.loader, self.first):
            seed_all(self.seed, 2, self.epoch, number, self.rank)
            yield batch


def mixing(recipe: Recipe, num_classes: int) -> Any:
    """timm's collation with mixup and cutmix, or None where a recipe has neither."""
    if not recipe.mixes:
        return None
    return FastCollateMixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mixup_prob,
        switch_prob=recipe.mixup_switch_prob,
        mode=recipe.mixup_mode,
        label_smoothing=recipe.smoothing,
        num_classes=num_classes,
    )


def as_it_is(batch: Any) -> Any:
    """Collate nothing: the data set gives whole batches."""
    return batch
