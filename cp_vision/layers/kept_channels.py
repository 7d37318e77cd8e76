"""Channels in the middle of an inverted residual or a bottleneck that stay.

Shapes: B batch, C channels, H x W grid, n channels before the filters, m behind them, g groups, K x K taps.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kept_gate import KeptGate
from .pointwise import pointwise

__all__ = ["KeptChannels"]


class KeptChannels(nn.Module):
    """``h(x) = gate(act_2(filters(act_1(V x + c)) + e))``, norms folded in; filters are depthwise, in groups or dense.

    Args:
        weight_nC: V.
        bias_n: c.
        act: act_1.
        filters_mnKK: filters, (m, n / g, K, K).
        filters_bias_m: e.
        filters_act: act_2.
        dilation: of the filters.
        gate: squeeze-and-excitation; None where there is none.

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
        gate: KeptGate | None = None,
    ) -> None:
        super().__init__()
        self.size, self.dilation = len(filters_mnKK), dilation
        self.groups = len(weight_nC) // filters_mnKK.shape[1]
        self.is_dense = self.groups == 1 and filters_mnKK.shape[1] > 1
        self.weight, self.bias, self.filters, self.filters_bias = (
            nn.Parameter(part.detach().clone()) for part in (weight_nC, bias_n, filters_mnKK, filters_bias_m)
        )
        self.act, self.filters_act, self.gate = copy.deepcopy(act), copy.deepcopy(filters_act), gate

    def some(self, which: Tensor) -> KeptChannels:
        """A copy with the groups of these numbers, of a depthwise filter one channel each.

        Of dense filters it has the channels of these numbers behind them and, of as many before them, those of the same
        numbers, until others are chosen.
        """
        if self.is_dense:
            return self.narrowed(which, which)
        before, behind = self._channels_of(which, len(self.weight)), self.behind(which)
        return self._of(before, behind, self.filters[behind])

    def behind(self, which: Tensor) -> Tensor:
        """Numbers of the channels behind the filters that parts of these numbers have."""
        return which if self.is_dense else self._channels_of(which, self.size)

    def _channels_of(self, groups: Tensor, count: int) -> Tensor:
        size = count // self.groups
        return (size * groups[:, None] + torch.arange(size, device=groups.device)).flatten()

    def narrowed(self, behind_m: Tensor, before_n: Tensor) -> KeptChannels:
        """A copy of dense filters from some channels to some, these as they are without the others."""
        return self._of(before_n, behind_m, self.filters[behind_m][:, before_n])

    def _of(self, before_n: Tensor, behind_m: Tensor, filters_mnKK: Tensor) -> KeptChannels:
        parts = self.weight[before_n], self.bias[before_n], self.act, filters_mnKK, self.filters_bias[behind_m]
        gate = None if self.gate is None else self.gate.some(behind_m)
        return KeptChannels(*parts, self.filters_act, self.dilation, gate)

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Channels of each pixel, (B, m, H, W); maps have no prefix tokens."""
        h_BmHW = self.ungated(x_BCHW)
        return h_BmHW if self.gate is None else self.gate(h_BmHW), None

    def ungated(self, x_BCHW: Tensor) -> Tensor:
        """The same before squeeze-and-excitation."""
        h_BnHW, padding = self.before(x_BCHW), self.dilation * (self.filters.shape[-1] // 2)
        h_BmHW = F.conv2d(h_BnHW, self.filters, self.filters_bias, 1, padding, self.dilation, groups=self.groups)
        activated: Tensor = self.filters_act(h_BmHW)
        return activated

    def before(self, x_BCHW: Tensor) -> Tensor:
        """What the filters read, (B, n, H, W)."""
        h_BnHW: Tensor = self.act(pointwise(x_BCHW, self.weight, self.bias))
        return h_BnHW

    def macs(self, grid: tuple[int, int], prefix: int) -> int:
        """Cost of one map in MACs."""
        n, channels = self.weight.shape
        of_pixel = n * (channels + 1) + self.size * (math.prod(self.filters.shape[1:]) + 1)
        return math.prod(grid) * of_pixel + (0 if self.gate is None else self.gate.macs())

    def extra_repr(self) -> str:
        """Show how many."""
        return f"{self.size}, filters of {self.filters.shape[-1]} over {self.filters.shape[1]}"
