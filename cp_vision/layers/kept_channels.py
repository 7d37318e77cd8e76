"""Expanded channels of an inverted residual that stay.

Shapes: B batch, C channels, H x W grid, m expanded channels, K x K taps.
"""

from __future__ import annotations

import copy
import math

from torch import Tensor, nn
from torch.nn import functional as F

from .pointwise import pointwise

__all__ = ["KeptChannels"]


class KeptChannels(nn.Module):
    """``h(x) = act_2(depthwise(act_1(V x + c)) + e)``: expansion and depthwise filters, their norms folded in.

    Args:
        weight_mC: V.
        bias_m: c.
        act: act_1.
        depthwise_mKK: filters.
        depthwise_bias_m: e.
        depthwise_act: act_2.
        dilation: of the filters.

    Attributes:
        size: m.
    """

    def __init__(
        self,
        weight_mC: Tensor,
        bias_m: Tensor,
        act: nn.Module,
        depthwise_mKK: Tensor,
        depthwise_bias_m: Tensor,
        depthwise_act: nn.Module,
        dilation: int,
    ) -> None:
        super().__init__()
        self.size, self.dilation = len(weight_mC), dilation
        self.weight, self.bias, self.depthwise, self.depthwise_bias = (
            nn.Parameter(part.detach().clone()) for part in (weight_mC, bias_m, depthwise_mKK, depthwise_bias_m)
        )
        self.act, self.depthwise_act = copy.deepcopy(act), copy.deepcopy(depthwise_act)

    def some(self, which_m: Tensor) -> KeptChannels:
        """A copy with the channels of these numbers."""
        weight, bias, filters, offset = (
            part[which_m] for part in (self.weight, self.bias, self.depthwise, self.depthwise_bias)
        )
        return KeptChannels(weight, bias, self.act, filters, offset, self.depthwise_act, self.dilation)

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Expanded channels of each pixel, (B, m, H, W); maps have no prefix tokens."""
        h_BmHW = self.act(pointwise(x_BCHW, self.weight, self.bias))
        padding = self.dilation * (self.depthwise.shape[-1] // 2)
        filters = self.depthwise[:, None]
        h_BmHW = F.conv2d(h_BmHW, filters, self.depthwise_bias, 1, padding, self.dilation, groups=self.size)
        return self.depthwise_act(h_BmHW), None

    def macs(self, grid: tuple[int, int], prefix: int) -> int:
        """Cost of one map in MACs."""
        return math.prod(grid) * self.size * (self.weight.shape[1] + 1 + math.prod(self.depthwise.shape[1:]) + 1)

    def extra_repr(self) -> str:
        """Show how many."""
        return f"{self.size}, filters of {self.depthwise.shape[-1]}"
