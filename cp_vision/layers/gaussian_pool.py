"""Pooling with equal weights and one support for all tokens: an average along each axis.

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
# Up to this side averages are products with a matrix along each axis, two to six times as fast as filters; beyond it
# most of a matrix is zero.
_SIDE = 16


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
        if max(grid) <= _SIDE:
            return channels * math.prod(grid) * sum(grid)
        return (2 * _REACH + 1) * (2 * channels * math.prod(grid) + sum(grid))

    def forward(self, x: Tensor) -> Any:
        """Pool a map."""
        if isinstance(x, fx.Proxy):
            return record_call(self, x)
        # Of an exported graph the sides may be open.
        if not torch.compiler.is_exporting() and max(x.shape[2:]) <= _SIDE:
            return self._by_matrices(x)
        return self._by_filters(x)

    def _by_matrices(self, x: Tensor) -> Tensor:
        rows_HH = columns_WW = self._average(x.shape[2], x)
        if x.shape[3] != x.shape[2]:
            columns_WW = self._average(x.shape[3], x)
        if x.stride(1) != 1:
            return rows_HH @ (x @ columns_WW.mT)
        x_BHWC = columns_WW @ x.permute(0, 2, 3, 1)
        return (rows_HH @ x_BHWC.flatten(2)).view_as(x_BHWC).permute(0, 3, 1, 2)

    def _average(self, side: int, x: Tensor) -> Tensor:
        """What averages along an axis: (side, side), the weights of each row add up to one."""
        place = torch.arange(side, device=x.device, dtype=torch.float32)
        distance = (place[:, None] - place).square()
        weight = torch.exp(-distance / (2 * torch.exp(2 * self.log_sigma.float())))
        weight = weight.masked_fill(distance > _REACH**2, 0)
        return (weight / weight.sum(1, keepdim=True)).to(x.dtype)

    def _by_filters(self, x: Tensor) -> Tensor:
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
