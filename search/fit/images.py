"""Unlabelled images: those to fit to, and those held out for scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cp_vision.fitting.batches import Batches
from cp_vision.fitting.block_sums import HELD_OUT_EVERY
from cp_vision.shared.errors import UserError

__all__ = ["FitImages", "Images", "is_held_out"]

# Stand-ins need 2 x 4 images to fit to, which are three quarters of all; scores need some.
_LEAST = 16
_BATCH = 32
# Images that take no more are kept, others are read again each time.
_BYTES = 2**29


class Images:
    """The first images of what a user gives, parted: every fourth is held out for scores, the others are fitted to.

    Held-out images are kept, those to fit to if they aren't too many; else they are read again each time.

    Args:
        images: as for :func:`cp_vision.fit_blocks`.
        model: whose device and type they get.
        limit: how many to take at most.

    Attributes:
        count: how many there are.
        size: (channels, height, width).
        held_out: batches of those for scores.
        fingerprint: tells these images from others.

    Raises:
        UserError: too few, of several sizes, all alike, with values that are no numbers, or others when read again.
    """

    def __init__(self, images: Any, model: nn.Module, limit: int) -> None:
        self.batches, self.limit = Batches(images, model), limit
        has_norms = any(isinstance(part, _BatchNorm) for part in model.modules())
        # On CPUs convolutions with BatchNorms are nearly twice as fast so.
        self._is_last = has_norms and self.batches.like.device.type == "cpu"
        self._kept: list[Tensor] | None = None
        kept, room = list[Tensor](), _BYTES
        digest, held_out = hashlib.sha256(), []
        self.count = 0
        size: tuple[int, ...] | None = None
        first: Tensor | None = None
        alike = True
        for batch in self._limited():
            size = size or tuple(batch.shape[1:])
            if tuple(batch.shape[1:]) != size:
                raise UserError(f"images of {size} and of {tuple(batch.shape[1:])} are mixed; resize them to one size")
            if not torch.isfinite(batch).all():
                raise UserError(
                    f"images: values that are no numbers (NaN or infinite) among the first {self.count + len(batch)}"
                )
            first = batch[:1].clone() if first is None else first
            alike = alike and bool((batch == first).all())
            digest.update(batch.cpu().float().contiguous().numpy().tobytes())
            held_out.append(batch[is_held_out(self.count, len(batch))].clone())
            self.count += len(batch)
            room -= batch.nbytes
            if room >= 0:
                kept.append(batch)
        if self.count < _LEAST or size is None:
            raise UserError(f"images: {self.count} are too few; give at least {_LEAST}, better 256 or more")
        if alike:
            raise UserError(f"images: all {self.count} are alike; give different ones, as the model sees them in use")
        again = next(iter(self.batches))[:1]
        if first is None or not torch.equal(again, first):
            raise UserError(
                "images are others when they are read again; give a tensor, or a DataLoader that doesn't shuffle"
            )
        if room >= 0:
            self._kept = kept
        self.size = (size[0], size[1], size[2])
        self.held_out = list(torch.cat(held_out).split(_BATCH))
        self.fingerprint = digest.hexdigest()

    def to_fit(self) -> Iterator[Tensor]:
        """Batches of those to fit to."""
        seen = 0
        for batch in self._limited():
            yield batch[~is_held_out(seen, len(batch))]
            seen += len(batch)

    def _limited(self) -> Iterator[Tensor]:
        if self._kept is not None:
            yield from self._kept
            return
        left = self.limit
        for batch in self.batches:
            if left <= 0:
                return
            yield batch[:left].contiguous(memory_format=torch.channels_last) if self._is_last else batch[:left]
            left -= len(batch)


def is_held_out(first: int, count: int) -> Tensor:
    """Of so many images in order, from this number on, which are held out."""
    return torch.arange(first, first + count) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


class FitImages:
    """Those to fit to, as something that can be read again and again.

    Args:
        images: all.
        limit: how many at most; None takes all.
    """

    def __init__(self, images: Images, limit: int | None = None) -> None:
        self.images, self.limit = images, limit

    def __iter__(self) -> Iterator[Tensor]:
        left = self.images.count if self.limit is None else self.limit
        for batch in self.images.to_fit():
            if left <= 0:
                return
            yield batch[:left]
            left -= len(batch)
