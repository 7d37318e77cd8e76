"""Channels between the two convolutions of a basic block that stay.

Shapes: B batch, C channels, H x W grid, m channels between, K x K taps, O outputs.
"""

from __future__ import annotations

import copy
import math

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["KeptFilters"]


class KeptFilters(nn.Module):
    """``h(x) = act(filters(x) + c)``, a norm folded in; a second convolution of K x K taps reads it.

    Args:
        filters_mCKK: filters.
        bias_m: c.
        act: the activation.
        dilation: of the filters.
        side: K of the convolution that reads it.
        read_dilation: of that convolution.

    Attributes:
        size: m K K, the values that are read for each pixel: those of one channel after the other.
    """

    def __init__(
        self, filters_mCKK: Tensor, bias_m: Tensor, act: nn.Module, dilation: int, side: int, read_dilation: int
    ) -> None:
        super().__init__()
        self.size, self.side = len(filters_mCKK) * side**2, side
        self.dilation, self.read_dilation = dilation, read_dilation
        self.filters, self.bias = (nn.Parameter(part.detach().clone()) for part in (filters_mCKK, bias_m))
        self.act = copy.deepcopy(act)

    def some(self, which_m: Tensor) -> KeptFilters:
        """A copy with the channels of these numbers."""
        filters, bias = self.filters[which_m], self.bias[which_m]
        return KeptFilters(filters, bias, self.act, self.dilation, self.side, self.read_dilation)

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Channels between, (B, m, H, W); maps have no prefix tokens."""
        padding = self.dilation * (self.filters.shape[-1] // 2)
        return self.act(F.conv2d(x_BCHW, self.filters, self.bias, 1, padding, self.dilation)), None

    def neighbours(self, h_BmHW: Tensor) -> Tensor:
        """What is read for each pixel, side by side: (B, m K K, H, W)."""
        padding = self.read_dilation * (self.side // 2)
        return F.unfold(h_BmHW, self.side, self.read_dilation, padding).unflatten(2, h_BmHW.shape[2:])

    def read(self, h_BmHW: Tensor, weight_OmKK: Tensor) -> Tensor:
        """The same as mixing :meth:`neighbours` by a matrix (O, m K K), without putting them side by side."""
        filters = weight_OmKK.unflatten(1, (-1, self.side, self.side))
        return F.conv2d(h_BmHW, filters, None, 1, self.read_dilation * (self.side // 2), self.read_dilation)

    def macs(self, grid: tuple[int, int], prefix: int) -> int:
        """Cost of one map in MACs, without reading it."""
        return math.prod(grid) * len(self.filters) * (math.prod(self.filters.shape[1:]) + 1)

    def extra_repr(self) -> str:
        """Show how many."""
        return f"{len(self.filters)}, filters of {self.filters.shape[-1]}, read by {self.side}"
