"""Pooling with equal weights and one support for all tokens: two filters, one along each axis.

Shapes: B batch, C channels, H x W grid, k taps.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from .context_pool_2d import record_call

__all__ = ["GaussianPool"]

_REACH = 3


class GaussianPool(nn.Module):
    """Gaussian-weighted average of the 7 x 7 neighbours, (B, C, H, W) -> (B, C, H, W).

    What a :class:`cp_vision.ContextPool2d` is whose weights and supports are not predicted, with a support of at most a
    few pixels. Neighbours outside of the map are left out of the average.

    Attributes:
        log_sigma: logarithm of the support in pixels, learned.

    Source: our extension.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with the variance of an average of 3 x 3 pixels."""
        self.log_sigma.fill_(math.log(2 / 3) / 2)

    @torch.no_grad()
    def start_at(self, sigma: float) -> None:
        """Begin with this support in pixels."""
        self.log_sigma.fill_(math.log(sigma))

    def macs(self, grid: tuple[int, int], channels: int) -> int:
        """Cost of one map in MACs."""
        return (2 * _REACH + 1) * (2 * channels * math.prod(grid) + sum(grid))

    def forward(self, x: Tensor) -> Any:
        """Pool a map."""
        if isinstance(x, fx.Proxy):
            return record_call(self, x)
        offset_k = torch.arange(-_REACH, _REACH + 1, device=x.device, dtype=torch.float32)
        # Denormal weights would slow the products down.
        kernel_k = (-(offset_k.square() / (2 * torch.exp(2 * self.log_sigma.float()))).clamp(max=60)).exp()
        for axis in (2, 3):
            shape = [1, 1, 1, 1]
            shape[axis] = len(offset_k)
            padding = [0, 0]
            padding[axis - 2] = _REACH
            inside = F.conv1d(kernel_k.new_ones(1, 1, x.shape[axis]), kernel_k[None, None], padding=_REACH)
            weight = kernel_k.to(x.dtype).view(shape).expand(x.shape[1], -1, -1, -1)
            x = F.conv2d(x, weight, padding=padding, groups=x.shape[1])
            x = x / inside.to(x.dtype).view([-1 if i == axis else 1 for i in range(4)])
        return x
