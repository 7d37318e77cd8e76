"""Squeeze-and-excitation of channels that stay, which reads these alone.

Shapes: B batch, H x W grid, m channels, r channels of the squeeze.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["KeptGate"]


class KeptGate(nn.Module):
    """``h * gate(E act(R mean(h) + c) + e)``, the mean over the grid.

    Args:
        reduce_rm: R.
        reduce_bias_r: c.
        act: the activation between.
        expand_mr: E.
        expand_bias_m: e.
        gate: the activation at the end.
    """

    def __init__(
        self,
        reduce_rm: Tensor,
        reduce_bias_r: Tensor,
        act: nn.Module,
        expand_mr: Tensor,
        expand_bias_m: Tensor,
        gate: nn.Module,
    ) -> None:
        super().__init__()
        self.reduce, self.reduce_bias, self.expand, self.expand_bias = (
            nn.Parameter(part.detach().clone()) for part in (reduce_rm, reduce_bias_r, expand_mr, expand_bias_m)
        )
        self.act, self.gate = copy.deepcopy(act), copy.deepcopy(gate)

    def some(self, which_m: Tensor) -> KeptGate:
        """A copy for the channels of these numbers, as it is without the others."""
        reduce, expand, offset = self.reduce[:, which_m], self.expand[which_m], self.expand_bias[which_m]
        return KeptGate(reduce, self.reduce_bias, self.act, expand, offset, self.gate)

    def forward(self, h_BmHW: Tensor) -> Tensor:
        """Weigh channels."""
        h_Br = self.act(F.linear(h_BmHW.mean((2, 3)), self.reduce, self.reduce_bias))
        gated: Tensor = h_BmHW * self.gate(F.linear(h_Br, self.expand, self.expand_bias))[..., None, None]
        return gated

    def macs(self) -> int:
        """Cost of one map in MACs."""
        squeeze, size = self.reduce.shape
        return squeeze * (size + 1) + size * (squeeze + 1)
