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


class _DepthwiseBlock(ContextPoolBlock):
    """Free filters of 3 x 3, then a linear map: no x beside them, which a filter can pass on itself."""

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(channels, pool=False, **options)
        self.pools = nn.ModuleList([_Depthwise(channels)])

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> Any:
        """Map (B, C, H, W); there are no prefix tokens."""
        (features,) = self.features(x_BCHW, x_BPC)
        y_BCHW = self.read_out(features).mT.unflatten(2, x_BCHW.shape[2:])
        return x_BCHW + y_BCHW if self.residual else y_BCHW

    def features(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> list[Tensor]:
        """What the linear map reads."""
        if x_BPC is not None:
            raise NotImplementedError("free filters stand in for maps without prefix tokens")
        return [self.pools[0](self._norm(x_BCHW, 1)).flatten(2).mT]


def _average(modules: Sequence[nn.Module], place: Place, rank: int | None = None) -> ContextPoolBlock:
    block = ContextPoolBlock(place.channels, rank=rank, residual=place.residual, norm=place.norm, prefix=place.prefix)
    block.pools = nn.ModuleList([_Average()])
    return block


def _depthwise(modules: Sequence[nn.Module], place: Place, rank: int | None = None) -> ContextPoolBlock:
    return _DepthwiseBlock(place.channels, rank=rank, residual=place.residual, norm=place.norm)


def register_rivals() -> None:
    """Add the kinds ``average`` and ``depthwise``."""
    register_stand_in("average", _average, ["rank"])
    register_stand_in("depthwise", _depthwise, ["rank"])
