"""A linear map through a narrow waist, whose weights can be set from a solution.

Shapes: F features, C channels, r rank: ``weight_CF = up_Cr down_rF``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ReadOut", "read_out_macs"]


class ReadOut(nn.Module):
    """A linear map with a bias, (..., F) -> (..., C), of rank r at most. It starts as zero.

    Where a waist would save nothing, r (F + C) >= F C, it is one matrix.

    Args:
        features: F.
        channels: C.
        rank: r.

    Attributes:
        down: (r, F), or (C, F) where there is no waist.
        up: (C, r), or None where there is no waist.
        bias: (C,).
    """

    def __init__(self, features: int, channels: int, rank: int) -> None:
        super().__init__()
        self.rank = min(rank, features, channels)
        self.has_waist = self.rank * (features + channels) < features * channels
        self.down = nn.Parameter(torch.empty(self.rank if self.has_waist else channels, features))
        self.up = nn.Parameter(torch.empty(channels, self.rank)) if self.has_waist else None
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin as zero, in a way that both matrices can be trained from there."""
        nn.init.zeros_(self.bias)
        if self.up is None:
            nn.init.zeros_(self.down)
        else:
            nn.init.orthogonal_(self.down)
            nn.init.zeros_(self.up)

    @torch.no_grad()
    def set(self, up_Cr: Tensor, down_rF: Tensor, bias_C: Tensor) -> None:
        """Become ``up down features + bias``.

        Args:
            up_Cr: orthonormal columns.
            down_rF: rows of any size.
            bias_C: the offset.
        """
        if self.up is None:
            self.down.copy_(up_Cr @ down_rF)
        else:
            # Both matrices get the root of each direction's size, so that they are alike to an optimiser.
            roots_r = down_rF.norm(dim=1).clamp_min(torch.finfo(self.down.dtype).tiny).sqrt()
            self.down.copy_(down_rF / roots_r[:, None])
            self.up.copy_(up_Cr * roots_r)
        self.bias.copy_(bias_C)

    def forward(self, features: Tensor) -> Tensor:
        """Map features, (..., F) -> (..., C)."""
        if self.up is None:
            return nn.functional.linear(features, self.down, self.bias)
        return nn.functional.linear(nn.functional.linear(features, self.down), self.up, self.bias)

    def extra_repr(self) -> str:
        """Show the sizes."""
        channels, features = len(self.bias), self.down.shape[1]
        return f"{features}, {channels}, rank={self.rank}"


def read_out_macs(features: int, channels: int, rank: int) -> int:
    """Cost of one token in MACs: the smaller of both forms, with the bias."""
    rank = min(rank, features, channels)
    return min(rank * (features + channels), features * channels) + channels
