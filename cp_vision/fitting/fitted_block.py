"""One stand-in while it is fitted: its features and targets, and setting its maps.

Shapes: B images of a batch, n tokens of an image, F features, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from ..anatomy.replacement import Replacement
from .block_sums import BlockSums
from .fit import BlockFit

__all__ = ["FittedBlock"]

# Features that are computed at once, in float64.
_BYTES = 2**28


class FittedBlock:
    """A stand-in while it is fitted.

    Args:
        path: where it stands in the student.
        replacement: it, in its place.

    Attributes:
        end: path of the last module that it replaces, whose output it should give.
        supports: in pixels, that its pools started from.
        result: how well it was fitted; None before.
    """

    def __init__(self, path: str, replacement: Replacement) -> None:
        self.path, self.replacement, self.stand_in = path, replacement, replacement.stand_in
        self.end = replacement.name.rpartition(":")[2]
        self.supports: tuple[float, ...] = ()
        self.result: BlockFit | None = None

    @property
    def keeps(self) -> bool:
        """Whether it keeps a part of what it stands in for."""
        return getattr(self.stand_in, "kept", None) is not None

    @property
    def wants(self) -> tuple[str, bool]:
        """What it should give: path of the module, and whether it is what goes into the activation at its end."""
        return self.end, self.replacement.act is not None

    def slices(self, x: Tensor, images: int) -> Iterator[tuple[slice, int]]:
        """Parts of a batch whose features take no more memory than they may, each with its number of images.

        Args:
            x: what it gets, of all images.
            images: how many these are; each may have several maps.
        """
        maps = len(x) // images
        tokens, features = maps * math.prod(self.grid(x)), self.stand_in.read_outs()[0].down.shape[1]
        count = max(1, _BYTES // (8 * tokens * features))
        for first in range(0, images, count):
            last = min(first + count, images)
            yield slice(first * maps, last * maps), last - first

    def parts(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features (B, n, F) and targets (B, n, C) of each part: the grid, then each prefix token."""
        return list(zip(self.features(x), self.targets(x, y), strict=True))

    def features(self, x: Tensor) -> list[Tensor]:
        """What the maps of each part read, (B, n, F)."""
        features: list[Tensor] = self.stand_in.features(*self.replacement.as_maps(x))
        return features

    def targets(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """What the maps of each part should give, (B, n, C)."""
        of_grid, *prefix = self.replacement.as_maps(y - x if self.stand_in.residual else y)
        return [of_grid.flatten(2).mT, *(token for tokens in prefix for token in tokens.split(1, 1))]

    def grid(self, x: Tensor) -> tuple[int, int]:
        """Height and width of a map."""
        height, width = self.replacement.as_maps(x)[0].shape[2:]
        return height, width

    def ranks(self) -> list[int]:
        """Of the map of each part."""
        return [read_out.rank for read_out in self.stand_in.read_outs()]

    def fit_to(self, x: Tensor, y: Tensor) -> float:
        """Set the maps from maps that are all there, and tell what they leave of the held-out images."""
        sums = BlockSums()
        for part, count in self.slices(x, len(x)):
            sums.add(self.parts(x[part], y[part]), count)
        return self.set(sums).unexplained

    def set(self, sums: BlockSums) -> BlockFit:
        """Set the maps from all images, with the ridges that were best on those held out; tell how good they are."""
        found = sums.solve(self.ranks())
        ridges, errors = [solution.ridge for solution, _ in found], [error for _, error in found]
        for read_out, solution in zip(self.stand_in.read_outs(), sums.refit(self.ranks(), ridges), strict=True):
            read_out.set(solution.up, solution.down, solution.bias)
        totals = sums.totals(centred=not self.stand_in.residual)
        self.result = BlockFit(
            name=self.replacement.name,
            unexplained=_share(errors[0], totals[0]),
            prefix_unexplained=_share(sum(errors[1:]), sum(totals[1:])) if len(errors) > 1 else None,
            ridge=ridges[0],
            supports=self.supports,
            curve={count: _share(error, totals[0]) for count, error in sums.curve(self.ranks()[0]).items()},
        )
        return self.result


def _share(error: float, total: float) -> float:
    return error / total if total > 0 else 0.0
