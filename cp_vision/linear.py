"""Context pooling in time and memory linear in the number of pixels, by the scale space of ``scale_space``.

The map and its weights are blurred into a few grids; every output token then picks the grid that suits its support
and averages a window of that grid's cells. The average is one ``embedding_bag``, which reads the cells where they lie.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .groups import map_groups
from .scale_space import BLUR, REDUCE, axis_cells, count_scales, is_shifted, reduce_padding, window_taps
from .window_average import WindowAverage
from .windows import Windows, find_windows

__all__ = ["count_linear_scales", "linear_macs", "linear_pool"]

# Tokens that weigh less than exp(-40) of the image's heaviest count as that: a window of such tokens alone still
# has a float32 sum, and no weight is denormal.
_WEIGHT_CUT = -40.0


def linear_pool(x: Tensor, log_weight: Tensor, sigma: Tensor, stride: int, sigma_max: float | None) -> Tensor:
    """Approximate :func:`cp_vision.context_pool` in linear time; arguments as there, unchecked."""

    def pool(x: Tensor, log_weight: Tensor, sigma: Tensor) -> Tensor:
        cells, mass = _make_cells(x, log_weight, count)
        return _to_map(WindowAverage.apply(cells, mass, sigma.to(cells.dtype), *windows), x, sigma)

    count = count_linear_scales((x.shape[2], x.shape[3]), stride, sigma_max)
    windows = _find_windows(x, sigma, stride, count)
    # Autocast would run the filters in half precision, where weights lose their digits.
    with _without_autocast(x.device.type):
        return map_groups(pool, x, log_weight, sigma)


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


def _make_cells(x: Tensor, log_weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The cells of all scales and images: sums of weighted tokens (cells, C), and of their weights (cells,)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    log_weight = log_weight.to(dtype)
    relative = log_weight - log_weight.detach().amax((1, 2), keepdim=True)
    weight = relative.clamp_min(_WEIGHT_CUT).exp().masked_fill(log_weight == float("-inf"), 0.0)[:, None]
    tokens = x.contiguous(memory_format=torch.channels_last) if _is_planar(x) else x
    return _make_scales(tokens.to(dtype) * weight, count).flatten(0, 1), _make_scales(weight, count).flatten()


def _make_scales(image: Tensor, count: int) -> Tensor:
    """All grids of the scale space as one list of cells, (B, C, H, W) -> (B, cells, C)."""
    if count == 1:
        return image.permute(0, 2, 3, 1).flatten(1, 2)
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
    if channels == 1:
        # Convolutions of one channel are slow; binomial taps are those of boxes applied in turn.
        for box in range(1, len(taps)):
            image = F.avg_pool2d(
                image,
                [1 if one else 2 for one in single],
                stride=[1 if one or box < len(taps) - 1 else stride for one in single],
                padding=[0 if one or box > padding else 1 for one in single],
            )
        return image
    weights = image.new_tensor(taps) / sum(taps)
    rows, columns = (weights.new_ones(1) if one else weights for one in single)
    return F.conv2d(
        image,
        (rows[:, None] * columns).expand(channels, 1, -1, -1),
        stride=[1 if one else stride for one in single],
        padding=[0 if one else padding for one in single],
        groups=channels,
    )


def _find_windows(x: Tensor, sigma: Tensor, stride: int, count: int) -> tuple[Windows, Windows]:
    outputs, (taps, slope_taps) = (sigma.shape[1], sigma.shape[2]), window_taps(count)
    return (
        find_windows(x, outputs, stride, count, taps),
        find_windows(x, outputs, stride, count, slope_taps, signed=True),
    )


def _is_planar(x: Tensor) -> bool:
    return x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last)


def _to_map(pooled: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """(B * H * W, C) -> (B, C, H, W), in the memory format and type of x.

    To planar maps in two steps that each move whole cache lines; the plain transposition takes up to four times as
    long.
    """
    tokens = pooled.to(x.dtype).unflatten(0, sigma.shape)
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
