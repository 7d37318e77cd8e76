"""Channels in the middle of an inverted residual or a bottleneck that stay.

Shapes: B batch, C channels, H x W grid, n channels before the filters, m behind them, g groups, K x K taps.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .pointwise import pointwise

__all__ = ["KeptChannels"]


class KeptChannels(nn.Module):
    """``h(x) = act_2(filters(act_1(V x + c)) + e)``, norms folded in; filters are depthwise, in groups or dense.

    Args:
        weight_nC: V.
        bias_n: c.
        act: act_1.
        filters_mnKK: filters, (m, n / g, K, K).
        filters_bias_m: e.
        filters_act: act_2.
        dilation: of the filters.

    Attributes:
        size: m.
        groups: g.
        is_dense: whether each channel behind the filters depends on all before them.
    """

    def __init__(
        self,
        weight_nC: Tensor,
        bias_n: Tensor,
        act: nn.Module,
        filters_mnKK: Tensor,
        filters_bias_m: Tensor,
        filters_act: nn.Module,
        dilation: int,
    ) -> None:
        super().__init__()
        self.size, self.dilation = len(filters_mnKK), dilation
        self.groups = len(weight_nC) // filters_mnKK.shape[1]
        self.is_dense = self.groups == 1 and filters_mnKK.shape[1] > 1
        self.weight, self.bias, self.filters, self.filters_bias = (
            nn.Parameter(part.detach().clone()) for part in (weight_nC, bias_n, filters_mnKK, filters_bias_m)
        )
        self.act, self.filters_act = copy.deepcopy(act), copy.deepcopy(filters_act)

    def some(self, which: Tensor) -> KeptChannels:
        """A copy with the groups of these numbers, of a depthwise filter one channel each.

        Of dense filters it has the channels of these numbers behind them and, of as many before them, those of the same
        numbers, until others are chosen.
        """
        if self.is_dense:
            return self.narrowed(which, which)
        before, behind = (
            (
                torch.arange(count // self.groups, device=which.device) + which[:, None] * (count // self.groups)
            ).flatten()
            for count in (len(self.weight), self.size)
        )
        return self._of(before, self.filters[behind], self.filters_bias[behind])

    def narrowed(self, behind_m: Tensor, before_n: Tensor) -> KeptChannels:
        """A copy of dense filters from some channels to some, these as they are without the others."""
        return self._of(before_n, self.filters[behind_m][:, before_n], self.filters_bias[behind_m])

    def _of(self, before_n: Tensor, filters_mnKK: Tensor, filters_bias_m: Tensor) -> KeptChannels:
        weight_nC, bias_n = self.weight[before_n], self.bias[before_n]
        return KeptChannels(weight_nC, bias_n, self.act, filters_mnKK, filters_bias_m, self.filters_act, self.dilation)

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Channels of each pixel, (B, m, H, W); maps have no prefix tokens."""
        padding = self.dilation * (self.filters.shape[-1] // 2)
        h_BmHW = F.conv2d(
            self.before(x_BCHW), self.filters, self.filters_bias, 1, padding, self.dilation, groups=self.groups
        )
        return self.filters_act(h_BmHW), None

    def before(self, x_BCHW: Tensor) -> Tensor:
        """What the filters read, (B, n, H, W)."""
        h_BnHW: Tensor = self.act(pointwise(x_BCHW, self.weight, self.bias))
        return h_BnHW

    def macs(self, grid: tuple[int, int], prefix: int) -> int:
        """Cost of one map in MACs."""
        n, channels = self.weight.shape
        return math.prod(grid) * (n * (channels + 1) + self.size * (math.prod(self.filters.shape[1:]) + 1))

    def extra_repr(self) -> str:
        """Show how many."""
        return f"{self.size}, filters of {self.filters.shape[-1]} over {self.filters.shape[1]}"
