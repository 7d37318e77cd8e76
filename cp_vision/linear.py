"""Context pooling in time and memory linear in the number of pixels, by the scale space of ``scale_space``.

The map and its weights are blurred into a few grids; every output token then picks the grid that suits its support
and sums a window of that grid's cells. The sum is one ``embedding_bag``, which reads the cells where they lie.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .scale_space import BLUR, REDUCE, axis_cells, count_scales, is_shifted, reduce_padding
from .window_sum import WindowAverage
from .windows import Windows, find_windows

__all__ = ["count_linear_scales", "linear_macs", "linear_pool"]

# Cells in a window along each axis, for the average itself and for its derivative by the support.
_TAPS, _SLOPE_TAPS = 6, 8

# Images are taken in groups whose grids fit this, so that they stay in the cache and on the heap.
_GROUP_BYTES = 16 << 20

# Tokens that weigh less than exp(-40) of the image's heaviest count as that: a window of such tokens alone still
# has a float32 sum, and no weight is denormal.
_WEIGHT_CUT = -40.0


def linear_pool(x: Tensor, log_weight: Tensor, sigma: Tensor, stride: int, sigma_max: float | None) -> Tensor:
    """Approximate :func:`cp_vision.context_pool` in linear time; arguments as there, unchecked."""
    count = count_linear_scales((x.shape[2], x.shape[3]), sigma_max)
    outputs = (sigma.shape[1], sigma.shape[2])
    windows = find_windows(x, outputs, stride, count, _TAPS)
    slopes = find_windows(x, outputs, stride, count, _SLOPE_TAPS, signed=True)
    # Autocast would run the convolutions in half precision, where weights lose their digits.
    with _without_autocast(x.device.type):
        if type(x) is not Tensor or torch.compiler.is_compiling():
            return _pool_group(x, log_weight, sigma, windows, slopes)
        group = max(1, _GROUP_BYTES // (windows.cells * x.shape[1] * 4))
        if group >= len(x):
            return _pool_group(x, log_weight, sigma, windows, slopes)
        parts = zip(x.split(group), log_weight.split(group), sigma.split(group), strict=True)
        return torch.cat([_pool_group(*part, windows, slopes) for part in parts])


def count_linear_scales(grid: tuple[int, int], sigma_max: float | None) -> int:
    """How many scales a map needs.

    Args:
        grid: its height and width.
        sigma_max: largest support in pixels; None stands for four times the longer side, where nearly every
            token weighs the same.
    """
    return count_scales(4.0 * max(grid) if sigma_max is None else sigma_max)


def linear_macs(channels: int, grid: tuple[int, int], outputs: int, count: int) -> int:
    """MACs of one image: the blurs of the map and of its weights, and the sums of the windows.

    Args:
        channels: channels of the map.
        grid: its height and width.
        outputs: number of output tokens.
        count: number of scales.
    """
    macs = 0
    window = 1
    for size in grid:
        window *= 1 if size == 1 else _TAPS
    height, width = (axis_cells(size, count) for size in grid)
    for scale in range(1, count):
        taps = len(BLUR if is_shifted(scale) else REDUCE)
        kernel = (1 if grid[0] == 1 else taps) * (1 if grid[1] == 1 else taps)
        macs += height[scale][1] * width[scale][1] * kernel * (channels + 1)
    return macs + outputs * window * channels


def _pool_group(x: Tensor, log_weight: Tensor, sigma: Tensor, windows: Windows, slopes: Windows) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    log_weight, support = log_weight.to(dtype), sigma.to(dtype)
    relative = log_weight - log_weight.detach().amax((1, 2), keepdim=True)
    weight = relative.clamp_min(_WEIGHT_CUT).exp().masked_fill(log_weight == float("-inf"), 0.0)[:, None]
    planar = x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last)
    tokens = x.contiguous(memory_format=torch.channels_last) if planar else x
    table = _make_scales(tokens.to(dtype) * weight, windows.count)
    mass = _make_scales(weight, windows.count)
    pooled = WindowAverage.apply(table.flatten(0, 1), mass.flatten(), support, windows, slopes)
    pooled = pooled.to(x.dtype).unflatten(0, sigma.shape)
    return _to_planar(pooled) if planar else pooled.permute(0, 3, 1, 2)


def _make_scales(image: Tensor, count: int) -> Tensor:
    """All grids of the scale space as one list of cells, (B, C, H, W) -> (B, cells, C)."""
    first, grids = 0, [image]
    for scale in range(1, count):
        blur = is_shifted(scale)
        padding, stride = (3, 1) if blur else (reduce_padding(first), 2)
        image = _filter(image, BLUR if blur else REDUCE, padding, stride)
        first = first - 1 if blur else (first - padding) // 2
        grids.append(image)
    return torch.cat([grid.permute(0, 2, 3, 1).flatten(1, 2) for grid in grids], 1)


def _filter(image: Tensor, taps: tuple[int, ...], padding: int, stride: int) -> Tensor:
    """Filter along both axes, but not along one of a single pixel."""
    channels = image.shape[1]
    single = [size == 1 for size in image.shape[2:]]
    weights = image.new_tensor(taps) / sum(taps)
    rows, columns = (weights.new_ones(1) if one else weights for one in single)
    return F.conv2d(
        image,
        (rows[:, None] * columns).expand(channels, 1, -1, -1),
        stride=[1 if one else stride for one in single],
        padding=[0 if one else padding for one in single],
        groups=channels,
    )


def _to_planar(tokens: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), contiguous.

    In two steps that each move whole cache lines; the plain transposition takes up to four times as long.
    """
    batch, height, width, channels = tokens.shape
    block = 32
    if channels % block:
        return tokens.permute(0, 3, 1, 2).contiguous()
    blocks = tokens.view(batch, height * width, channels // block, block).transpose(1, 2).contiguous()
    return blocks.mT.reshape(batch, channels, height, width)


def _without_autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    if device == "meta" or not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)
