"""Which images make up each batch of a training, and how processes share a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Sampler

from cp_vision.shared.errors import UserError

from ..recipe.keys import Recipe

__all__ = ["Order", "Place", "Share", "share_batch"]

Place = tuple[int, int, int]
"""An image's place in a training: epoch, position within the epoch, and index of the image."""


@dataclass(frozen=True)
class Share:
    """What one process does of an update.

    The batch of an update is ``grad_accum_steps`` micro-batches of ``batch_size`` images, whatever the number of
    processes: they take micro-batches in turns, or where there are more processes than micro-batches, parts of
    them.

    Attributes:
        size: images that this process takes at a time.
        count: how many times per update.
        parts: processes that share a micro-batch.
    """

    size: int
    count: int
    parts: int


def share_batch(recipe: Recipe, processes: int) -> Share:
    """Share the batch of an update among processes.

    Raises:
        UserError: it can't be shared equally.
    """
    size, steps = recipe.batch_size, recipe.grad_accum_steps
    parts, even = max(1, processes // steps), 2 if recipe.mixes else 1
    if (steps % processes and processes % steps) or size % (parts * even):
        raise UserError(
            f"a batch of grad_accum_steps {steps} times batch_size {size} can't be shared by {processes} processes"
            f"{' in even parts, which mixup and cutmix need' if recipe.mixes else ''}; choose numbers that divide"
        )
    return Share(size // parts, steps * parts // processes, parts)


class Order(Sampler[list[Place]]):
    """The micro-batches of an epoch on one process: a batch sampler.

    Every epoch is a new permutation of the images, which depends on the seed and the epoch alone; with
    ``aug_repeats`` every image comes that many times in a row, and fewer of them in an epoch (Hoffer et al.,
    *Augment your batch*, CVPR 2020). Images that don't fill a batch wait for another epoch.

    Args:
        images: number of images.
        recipe: batch size, repeats, seed.
        rank: number of this process.
        processes: how many there are.

    Raises:
        UserError: fewer images than one batch, or a batch that can't be shared.
    """

    def __init__(self, images: int, recipe: Recipe, rank: int = 0, processes: int = 1) -> None:
        self.images, self.recipe, self.rank, self.processes = images, recipe, rank, processes
        self.share = share_batch(recipe, processes)
        if images < recipe.update_size:
            steps = f" times grad_accum_steps {recipe.grad_accum_steps}" if recipe.grad_accum_steps > 1 else ""
            raise UserError(
                f"batch_size {recipe.batch_size}{steps} is more than the {images} training images; lower it"
            )
        self.updates = images // recipe.update_size
        self.epoch = self.first = 0

    def start(self, epoch: int, first: int = 0) -> None:
        """Say which epoch comes next, from 0, and from which of its updates on."""
        self.epoch, self.first = epoch, first

    def __len__(self) -> int:
        return (self.updates - self.first) * self.share.count

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, recipe = self.epoch, self.recipe
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((recipe.seed, epoch)).generate_state(1)[0])
        )
        order = torch.randperm(self.images, generator=generator)
        if recipe.aug_repeats:
            order = order.repeat_interleave(recipe.aug_repeats)[: self.images]
        indices = order.tolist()
        for update in range(self.first, self.updates):
            for turn in range(self.share.count):
                unit, part = divmod(self.rank + turn * self.processes, self.share.parts)
                # Micro-batches take images in turns, so that the copies of one image go to several.
                places = [update * recipe.update_size + unit + i * recipe.grad_accum_steps for i in self._part(part)]
                yield [(epoch, place, indices[place]) for place in places]

    def _part(self, part: int) -> list[int]:
        """Positions in a micro-batch: mixup mixes the first image with the last, so pairs stay together."""
        half = self.recipe.batch_size // 2 if self.recipe.mixes else self.recipe.batch_size
        first = range(part, half, self.share.parts)
        return [*first, *(self.recipe.batch_size - 1 - i for i in reversed(first) if self.recipe.mixes)]
