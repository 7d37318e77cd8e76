"""The sums that a stand-in is fitted from, over images to fit and images that are held out.

Shapes: B images, n tokens of a map, F features, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..shared.errors import UserError
from .least_squares import RIDGES, LowRank, Sums, fit, solve

__all__ = ["HELD_OUT_EVERY", "BlockSums"]

# Every so many images one is held out: for choosing supports and ridges, and for the errors that are told.
HELD_OUT_EVERY = 4


class BlockSums:
    """Sums for each part of a stand-in's output: its grid, then each prefix token.

    Args:
        counts: numbers of images, rising, whose errors :meth:`curve` tells.
        dtype: of the sums.

    Attributes:
        images: how many were added.
    """

    def __init__(self, counts: Sequence[int] = (), dtype: torch.dtype = torch.float64) -> None:
        self.images = 0
        self._counts, self._dtype = tuple(counts), dtype
        # Of each part, one for each segment between counts.
        self._fitted: list[list[Sums]] = []
        self._held_out: list[Sums] = []

    def add(self, parts: Sequence[tuple[Tensor, Tensor]], images: int) -> None:
        """Add a batch.

        Args:
            parts: features (B, n, F) and targets (B, n, C) of each part.
            images: how many images they are of: B, or less where an image has several maps (windows).
        """
        if not self._held_out:
            sizes = [(features.shape[2], targets.shape[2], _home(features), self._dtype) for features, targets in parts]
            self._held_out = [Sums(*size) for size in sizes]
            self._fitted = [[Sums(*size) for _ in range(len(self._counts) + 1)] for size in sizes]
        number = torch.arange(self.images, self.images + images)
        self.images += images
        is_held_out = number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        segment = torch.bucketize(number, torch.tensor(self._counts, dtype=torch.long), right=True)
        for (features, targets), fitted, held_out in zip(parts, self._fitted, self._held_out, strict=True):
            chosen = [(held_out, is_held_out), *((one, ~is_held_out & (segment == i)) for i, one in enumerate(fitted))]
            for sums, which in chosen:
                if which.any():
                    rows = which.repeat_interleave(len(features) // images).to(features.device)
                    f_MF, t_MC = (x[rows].flatten(0, 1).to(_home(x)) for x in (features, targets))
                    sums.add(f_MF, t_MC)

    def solve(self, ranks: Sequence[int], ridges: Sequence[float] = RIDGES) -> list[tuple[LowRank, float]]:
        """The map of each part, fitted to all images but those held out, and its squared error on these.

        Raises:
            UserError: too few images.
        """
        least = 2 * HELD_OUT_EVERY
        if self.images < least:
            raise UserError(f"images: {self.images} are too few to fit to; give at least {least}, better 256")
        parts = zip(self._fitted, self._held_out, ranks, strict=False)
        return [solve(Sums.of(fitted), held_out, rank, ridges) for fitted, held_out, rank in parts]

    def refit(self, ranks: Sequence[int], ridges: Sequence[float]) -> list[LowRank]:
        """The map of each part, fitted to all images, with a ridge for each part."""
        parts = zip(self._fitted, self._held_out, ranks, ridges, strict=True)
        return [fit(Sums.of([*fitted, held_out]), rank, ridge) for fitted, held_out, rank, ridge in parts]

    def totals(self, centred: bool) -> list[float]:
        """Sums of squares of the held-out targets of each part, about their mean where ``centred``."""
        return [held_out.total(centred) for held_out in self._held_out]

    def curve(self, rank: int) -> dict[int, float]:
        """Of the first part, the squared error on all held-out images after so many images."""
        reached = [(i, count) for i, count in enumerate(self._counts) if count <= self.images]
        fitted = self._fitted[0]
        return {n: solve(Sums.of(fitted[: i + 1]), self._held_out[0], rank)[1] for i, n in reached}


def _home(tensor: Tensor) -> torch.device:
    # Apple's GPUs have no float64.
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device
