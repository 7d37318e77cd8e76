"""Rivals of the pools in a ContextPoolBlock, as kinds of stand-ins: what else could stand beside the linear map.

Shapes: B batch, C channels, H x W grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from cp_vision import ContextPoolBlock, register_stand_in
from cp_vision.anatomy.places import Place

__all__ = ["register_rivals"]


class _Average(nn.Module):
    """Average of the 3 x 3 neighbours that lie in the map, (B, C, H, W) -> (B, C, H, W)."""

    def macs(self, grid: tuple[int, int], channels: int) -> int:
        """One for each neighbour, as for any other filter of 3 x 3."""
        return 9 * channels * math.prod(grid)

    def forward(self, x: Tensor) -> Tensor:
        """Average a map."""
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _Depthwise(nn.Conv2d):
    """A free filter of 3 x 3 for each channel; it begins as an average."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)
        nn.init.constant_(self.weight, 1 / 9)

    def macs(self, grid: tuple[int, int], channels: int) -> int:
        """Of C channels, whatever goes in: the filters can't be applied behind the map."""
        return 9 * self.in_channels * math.prod(grid)


class _FilteredBlock(ContextPoolBlock):
    """A filter, then a linear map: no x beside it."""

    def __init__(self, channels: int, pool: nn.Module, **options: Any) -> None:
        super().__init__(channels, pool=False, **options)
        self.pools = nn.ModuleList([pool])

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> Any:
        """Map (B, C, H, W); with prefix tokens (B, P, C) beside it, both of them."""
        of_grid, *of_prefix = self.features(x_BCHW, x_BPC)
        y_BCHW = self.read_out(of_grid).mT.unflatten(2, x_BCHW.shape[2:])
        y_BCHW = x_BCHW + y_BCHW if self.residual else y_BCHW
        if x_BPC is None:
            return y_BCHW
        y_BPC = self._map_prefix(of_prefix)
        return y_BCHW, x_BPC + y_BPC if self.residual else y_BPC

    def features(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> list[Tensor]:
        """What the linear maps read."""
        n_BCHW = self._norm(x_BCHW, 1)
        of_grid = self.pools[0](n_BCHW).flatten(2).mT
        if x_BPC is None:
            return [of_grid]
        return [of_grid, *self._prefix_features(self._norm(x_BPC, 2), n_BCHW.flatten(2).mT, None)]


def _average(modules: Sequence[nn.Module], place: Place, rank: int | None = None) -> ContextPoolBlock:
    block = ContextPoolBlock(place.channels, rank=rank, residual=place.residual, norm=place.norm, prefix=place.prefix)
    block.pools = nn.ModuleList([_Average()])
    return block


def _average_alone(modules: Sequence[nn.Module], place: Place, rank: int | None = None) -> ContextPoolBlock:
    return _filtered(_Average(), place, rank)


def _depthwise(modules: Sequence[nn.Module], place: Place, rank: int | None = None) -> ContextPoolBlock:
    return _filtered(_Depthwise(place.channels), place, rank)


def _filtered(pool: nn.Module, place: Place, rank: int | None) -> ContextPoolBlock:
    options = {"residual": place.residual, "norm": place.norm, "prefix": place.prefix}
    return _FilteredBlock(place.channels, pool, rank=rank, **options)


def register_rivals() -> None:
    """Add the kinds ``average``, ``average alone`` and ``depthwise``."""
    register_stand_in("average", _average, ["rank"])
    register_stand_in("average alone", _average_alone, ["rank"])
    register_stand_in("depthwise", _depthwise, ["rank"])
