"""The sums that a stand-in is fitted from, over images to fit and images that are held out.

Shapes: B images, n tokens of a map, F features, C channels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..shared.errors import UserError
from .least_squares import RIDGES, LowRank, Regression, Sums, solve

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
        self._regressions: dict[tuple[int, int, bool], Regression] = {}

    def add(self, parts: Sequence[tuple[Tensor, Tensor]], images: int) -> None:
        """Add a batch.

        Args:
            parts: features (B, n, F) and targets (B, n, C) of each part.
            images: how many images they are of: B, or less where an image has several maps (windows).
        """
        self._regressions.clear()
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
            UserError: too few images, or maps that aren't finite.
        """
        least = 2 * HELD_OUT_EVERY
        if self.images < least:
            raise UserError(f"images: {self.images} are too few to fit to; give at least {least}, better 256")
        every = (sums for part in (self._held_out, *self._fitted) for sums in part)
        if not all(math.isfinite(sums.total(False)) for sums in every):
            raise UserError(
                "images: what a block gives for some of them is no number (NaN or infinite); look at the images and at "
                "the weights of the model before its blocks were replaced"
            )
        parts = enumerate(zip(self._held_out, ranks, strict=False))
        return [solve(self._regression(i, False), held_out, rank, ridges) for i, (held_out, rank) in parts]

    def refit(self, ranks: Sequence[int], ridges: Sequence[float]) -> list[LowRank]:
        """The map of each part, fitted to all images, with a ridge for each part."""
        parts = enumerate(zip(ranks, ridges, strict=True))
        return [self._regression(i, True).fit(rank, ridge) for i, (rank, ridge) in parts]

    def of_targets(self, targets: slice) -> BlockSums:
        """The sums of some of the targets of all parts; a view."""
        return self._narrow([slice(None)] * len(self._held_out), targets, {})

    def of_leading(self, counts: Sequence[int]) -> BlockSums:
        """The sums of the leading features of each part; a view that shares its regressions."""
        return self._narrow([slice(count) for count in counts], slice(None), self._regressions)

    def of_features(self, features: Tensor) -> BlockSums:
        """The sums of some of the features, by number, where there is one part."""
        return self._narrow([features], slice(None), {})

    def _narrow(
        self, features: Sequence[slice | Tensor], targets: slice, regressions: dict[tuple[int, int, bool], Regression]
    ) -> BlockSums:
        part = copy.copy(self)
        part._regressions = regressions
        part._held_out = [sums.narrow(f, targets) for sums, f in zip(self._held_out, features, strict=True)]
        part._fitted = [
            [sums.narrow(f, targets) for sums in segments] for segments, f in zip(self._fitted, features, strict=True)
        ]
        return part

    def _regression(self, part: int, of_all: bool) -> Regression:
        key = (part, len(self._held_out[part].f_F), of_all)
        if key not in self._regressions:
            sums = [*self._fitted[part], *([self._held_out[part]] if of_all else [])]
            self._regressions[key] = Regression(Sums.of(sums))
        return self._regressions[key]

    def totals(self, centred: bool) -> list[float]:
        """Sums of squares of the held-out targets of each part, about their mean where ``centred``."""
        return [held_out.total(centred) for held_out in self._held_out]

    def curve(self, rank: int) -> dict[int, float]:
        """Of the first part, the squared error on all held-out images after so many images."""
        reached = [(i, count) for i, count in enumerate(self._counts) if count <= self.images]
        fitted = self._fitted[0]
        return {n: solve(Regression(Sums.of(fitted[: i + 1])), self._held_out[0], rank)[1] for i, n in reached}


def _home(tensor: Tensor) -> torch.device:
    # Apple's GPUs have no float64.
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device
