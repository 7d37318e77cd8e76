"""What is chosen before stand-ins are fitted, on the first images: parts of blocks that stay, and supports of pools."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .block_sums import BlockSums
from .fitted_block import FittedBlock
from .kept import KeptSums, keep_best
from .supports import set_supports, starting_supports

__all__ = ["Choice"]

# Chosen on so many images, with the better of these ridges.
_FEW = 64
_FEW_RIDGES = (1e-4, 1e-2)


class Choice:
    """Chooses for some stand-ins, from what each gets and should give for the first images.

    Args:
        fitted: the stand-ins; those that have nothing to choose are left alone.
        teacher: the model that has what they stand in for.
    """

    def __init__(self, fitted: Sequence[FittedBlock], teacher: nn.Module) -> None:
        self._narrow = [one for one in fitted if one.keeps]
        self._pooled = [one for one in fitted if len(getattr(one.stand_in, "pools", ()))]
        self._kept = {one.path: KeptSums(teacher.get_submodule(one.path)) for one in self._narrow}
        self._grids: dict[FittedBlock, tuple[int, int]] = {}
        self._tried: dict[FittedBlock, list[tuple[tuple[float, ...], BlockSums]]] = {}
        # Supports of those that keep a part are tried once that is there.
        self._waiting: dict[FittedBlock, list[tuple[int, Tensor, Tensor]]] = {}
        self._left = _FEW if self._narrow or self._pooled else 0

    @property
    def is_open(self) -> bool:
        """Whether more images are wanted."""
        return self._left > 0

    def add(self, images: int, maps: dict[FittedBlock, tuple[Tensor, Tensor]]) -> None:
        """Add a batch: its number of images, and what each stand-in gets and should give."""
        few = min(images, self._left)
        self._left -= few
        # An image may have several maps (windows).
        maps = {one: (x[: len(x) * few // images], y[: len(y) * few // images]) for one, (x, y) in maps.items()}
        given = {one.path: one.replacement.as_maps(maps[one][0]) for one in self._narrow}
        for path, of_path in self._kept.items():
            of_path.add(given[path])
        for one in self._pooled:
            if one.keeps:
                self._waiting.setdefault(one, []).append((few, *maps[one]))
            else:
                self._try(one, few, *maps[one])

    def make(self) -> None:
        """Let the stand-ins have what is best."""
        for path, of_path in self._kept.items():
            keep_best([one.stand_in for one in self._narrow if one.path == path], of_path)
        for one, batches in self._waiting.items():
            for batch in batches:
                self._try(one, *batch)
        for one, tried in self._tried.items():
            if tried:
                errors = [sums.solve(one.ranks()[:1], _FEW_RIDGES)[0][1] for _, sums in tried]
                one.supports = tried[errors.index(min(errors))][0]
                set_supports(one.stand_in, one.supports, self._grids[one])
        self._left = 0

    def _try(self, one: FittedBlock, images: int, x: Tensor, y: Tensor) -> None:
        grid = self._grids[one] = one.grid(x)
        if one not in self._tried:
            starts = starting_supports(one.stand_in, grid)
            self._tried[one] = [(supports, BlockSums(dtype=torch.float32)) for supports in starts]
        for supports, sums in self._tried[one]:
            set_supports(one.stand_in, supports, grid)
            sums.add(one.parts(x, y)[:1], images)
