"""Hidden units of an MLP that stay.

Shapes: B batch, C channels, H x W grid, P prefix tokens, N tokens, m hidden units.
``x_BCHW`` the map, ``x_BPC`` its prefix tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .pointwise import pointwise

__all__ = ["KeptUnits"]


class KeptUnits(nn.Module):
    """``h(x) = act(V x + c)``, or gated ``act(V_g x + c_g) (V x + c)``.

    Args:
        weights_mC: V; of gated units V_g before it.
        biases_m: likewise; None is zero.
        act: the activation.

    Attributes:
        size: m.
    """

    def __init__(self, weights_mC: Sequence[Tensor], biases_m: Sequence[Tensor | None], act: nn.Module) -> None:
        super().__init__()
        self.size, self.gated = len(weights_mC[0]), len(weights_mC) > 1
        biases = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights_mC, biases_m, strict=True)]
        self.weight = nn.Parameter(torch.cat([weight.detach() for weight in weights_mC]))
        self.bias = nn.Parameter(torch.cat([bias.detach() for bias in biases]))
        self.act = copy.deepcopy(act)

    def some(self, which_m: Tensor) -> KeptUnits:
        """A copy with the units of these numbers."""
        weights = [weight[which_m] for weight in self.weight.chunk(1 + self.gated)]
        return KeptUnits(weights, [bias[which_m] for bias in self.bias.chunk(1 + self.gated)], self.act)

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The units of each token: (B, m, H, W), and (B, P, m) where there are prefix tokens."""
        h_BmHW = self._units(pointwise(x_BCHW, self.weight, self.bias), 1)
        return h_BmHW, None if x_BPC is None else self.of_tokens(x_BPC)

    def of_tokens(self, x_BNC: Tensor) -> Tensor:
        """The units of tokens in a row, prefix tokens among them: (B, N, m)."""
        return self._units(F.linear(x_BNC, self.weight, self.bias), 2)

    def macs(self, grid: tuple[int, int], prefix: int) -> int:
        """Cost of one map and its prefix tokens in MACs."""
        return (math.prod(grid) + prefix) * self.weight.shape[0] * (self.weight.shape[1] + 1)

    def _units(self, linear: Tensor, dim: int) -> Tensor:
        first, *second = linear.chunk(1 + self.gated, dim)
        activated: Tensor = self.act(first)
        return activated * second[0] if second else activated

    def extra_repr(self) -> str:
        """Show how many."""
        return f"{self.size}, gated={self.gated}"
