"""Context pooling in time and memory linear in the number of pixels, by the scale space of ``scale_space``.

The map and its weights are blurred into a few grids; every output token then picks the grid that suits its support
and averages a window of that grid's cells. The average is one ``embedding_bag``, which reads the cells where they lie.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from .linear_average import average_windows
from .scale_space import BLUR, REDUCE, axis_cells, count_scales, is_shifted, window_taps
from .scales import make_mass
from .windows import Windows, find_windows

__all__ = ["count_linear_scales", "linear_macs", "linear_pool"]

# Tokens that weigh less than exp(-40) of the image's heaviest count as that: a window of such tokens alone still
# has a float32 sum, and no weight is denormal.
_WEIGHT_CUT = -40.0

# Smallest support of an output beyond the map's edge, as a share of its distance from the map.
_REACH = 0.2


def linear_pool(
    x: Tensor, log_weight: Tensor, sigma: Tensor, gate: Tensor | None, stride: int, sigma_max: float | None
) -> Tensor:
    """Approximate :func:`.gated_context_pool` in linear time; arguments as there, unchecked."""
    count = count_linear_scales((x.shape[2], x.shape[3]), stride, sigma_max)
    windows, slopes = _find_windows(x, sigma, stride, count)
    dtype = torch.promote_types(x.dtype, torch.float32)
    # Autocast would run the filters in half precision, where weights lose their digits.
    with _without_autocast(x.device.type):
        weight = _token_weights(log_weight.to(dtype))
        tokens = x.permute(0, 2, 3, 1).to(dtype).contiguous()
        support, gate = sigma.to(dtype), None if gate is None else gate.to(dtype)
        if stride > 2:
            support = support.maximum(_least_support(x, sigma, stride))
        pooled = average_windows(tokens, weight, make_mass(weight, count), support, gate, windows, slopes)
        return _to_map(pooled, x)


def count_linear_scales(grid: tuple[int, int], stride: int, sigma_max: float | None) -> int:
    """How many scales a map needs.

    Args:
        grid: its height and width.
        stride: pixels between outputs.
        sigma_max: largest support in pixels; None stands for four times the longer side, where nearly every
            token weighs the same.
    """
    return count_scales(4.0 * max(grid) if sigma_max is None else sigma_max, stride % 2 == 0)


def linear_macs(channels: int, grid: tuple[int, int], outputs: int, count: int) -> int:
    """MACs of one image: the filters that make the scales, and the windows' sums for tokens and mass.

    Args:
        channels: channels of the map.
        grid: its height and width.
        outputs: number of output tokens.
        count: number of scales.
    """
    filters = 0
    height, width = (axis_cells(size, count) for size in grid)
    for scale in range(1, count):
        length = len(BLUR if is_shifted(scale) else REDUCE)
        kernel = (1 if grid[0] == 1 else length) * (1 if grid[1] == 1 else length)
        filters += height[scale][1] * width[scale][1] * kernel
    taps, _ = window_taps(count)
    window = (1 if grid[0] == 1 else taps) * (1 if grid[1] == 1 else taps)
    return filters * channels + outputs * window * (channels + 1)


def _token_weights(log_weight: Tensor) -> Tensor:
    relative = log_weight - log_weight.detach().amax((1, 2), keepdim=True)
    return relative.clamp_min(_WEIGHT_CUT).exp().masked_fill(log_weight == float("-inf"), 0.0)


def _find_windows(x: Tensor, sigma: Tensor, stride: int, count: int) -> tuple[Windows, Windows]:
    outputs, (taps, slope_taps) = (sigma.shape[1], sigma.shape[2]), window_taps(count)
    return (
        find_windows(x, outputs, stride, count, taps),
        find_windows(x, outputs, stride, count, slope_taps, signed=True),
    )


def _least_support(x: Tensor, sigma: Tensor, stride: int) -> Tensor:
    """Supports, (height, width) of the outputs, with which windows reach the map where an output lies beyond its edge.

    Smaller ones would give the nearest token, and nearly so do these.
    """
    rows, columns = (
        (torch.arange(out, device=x.device) * stride + ((stride - 1) / 2 - (size - 1))).clamp_min(0.0)
        for size, out in zip(x.shape[2:], sigma.shape[1:], strict=True)
    )
    return _REACH * torch.maximum(rows[:, None], columns)


def _is_planar(x: Tensor) -> bool:
    return x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last)


def _to_map(pooled: Tensor, x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), in the memory format and type of x.

    To planar maps in two steps that each move whole cache lines; the plain transposition takes up to four times as
    long.
    """
    tokens = pooled.to(x.dtype)
    if not _is_planar(x):
        return tokens.permute(0, 3, 1, 2)
    batch, height, width, channels = tokens.shape
    block = 32
    if channels % block:
        return tokens.permute(0, 3, 1, 2).contiguous()
    blocks = tokens.view(batch, height * width, channels // block, block).transpose(1, 2).contiguous()
    return blocks.mT.contiguous().view(batch, channels, height, width)


def _without_autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    if device == "meta" or not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)
