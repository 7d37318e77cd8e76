"""Images in batches, as often as they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from torch import Tensor, nn

from ..shared.errors import UserError

__all__ = ["Batches"]

_BATCH = 32


class Batches:
    """Batches of images on a model's device, the same ones each time.

    Args:
        images: (N, channels, height, width); or batches of such, which may be the first of a tuple (with labels),
            in something that can be read again and again, such as a list or a DataLoader that doesn't shuffle.
        model: whose device and type they get.

    Raises:
        UserError: no such images, or an iterator, which could be read only once; a model without weights.
    """

    def __init__(self, images: Any, model: nn.Module) -> None:
        if isinstance(images, Tensor):
            images = images.split(_BATCH)
        if not isinstance(images, Iterable):
            raise UserError(f"images {images!r} must be a tensor (N, channels, height, width) or batches of such")
        if iter(images) is images:
            raise UserError(
                "images can be read only once, but are needed several times; give a tensor, a list or a DataLoader"
            )
        self.images = images
        if any(p.is_meta for p in model.parameters()):
            raise UserError(f"this {type(model).__name__} has no weights (device meta); load them first")
        self.like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))

    def __len__(self) -> int:
        """Number of batches; 0 where that can't be said."""
        return len(self.images) if isinstance(self.images, Sized) else 0

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.images:
            images = batch[0] if isinstance(batch, tuple | list) else batch
            if not isinstance(images, Tensor) or images.ndim != 4:
                found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                raise UserError(f"images: a batch must be a tensor (B, channels, height, width), got {found}")
            if len(images):
                yield images.to(device=self.like.device, dtype=self.like.dtype)
