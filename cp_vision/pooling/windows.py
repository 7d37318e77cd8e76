"""Which cells of the pyramid every output token reads, and with what weights.

Shapes: B batch, h x w grid of the outputs, L levels, t cells of a window along an axis (one where the map is one
pixel wide), T = B h w output tokens. ``support_Bhw`` in pixels, ``index`` (T, t t) among the cells of all levels and
images, ``weights_Tt`` along each axis.

A Gaussian of variance s^2 is read off level l by weights ``exp(-d^2 / (2 (s^2 - v)))`` of the cells at distance d,
v being the variance a cell of that level has already.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .pyramid import axis_cells, level_ends, level_variance

__all__ = ["LEAST_EXPONENT", "LEAST_SUPPORT", "REACH", "Windows", "find_windows", "outer", "window_taps"]

# Cells up to this distance, in cells, belong to a window.
REACH = 4.5

# Cells with a smaller share than exp of this are left out: they change no digit, and their products would be denormal.
LEAST_EXPONENT = -18.4

# Supports below this are the identity in every float type; it keeps the exponents and their derivatives finite.
LEAST_SUPPORT = 1e-6


class Windows(NamedTuple):
    """Windows of T output tokens. The slopes are the derivatives of the weights by the support."""

    cells: Tensor  # (T, t * t), indices among the cells of the whole batch: image by image, level by level
    rows: Tensor  # weights, (T, t)
    columns: Tensor
    row_slopes: Tensor
    column_slopes: Tensor


def find_windows(support_Bhw: Tensor, grid: tuple[int, int], stride: int, count: int) -> Windows:
    """The windows of all outputs.

    Args:
        support_Bhw: sigma in pixels.
        grid: height and width of the input.
        stride: pixels between outputs.
        count: number of levels.
    """
    batch, height, width = support_Bhw.shape
    device, dtype = support_Bhw.device, support_Bhw.dtype
    ends = torch.tensor(level_ends(count)[:-1], dtype=dtype, device=device)
    level = (support_Bhw.detach()[..., None] > ends).sum(-1)
    variance = torch.tensor([level_variance(each) for each in range(count)], dtype=dtype, device=device)
    support = support_Bhw.clamp_min(LEAST_SUPPORT)
    spare = support.square() - variance[level]
    rows, columns = (axis_cells(size, count) for size in grid)
    places, cells = [], 0
    for (_, down), (_, across) in zip(rows, columns, strict=True):
        places.append((cells, across))
        cells = cells + down * across
    before, across_B = F.embedding(level, torch.tensor(places, device=device)).unbind(-1)
    found = [
        _axis_windows(size, outputs, cells_, stride, level, spare, dim)
        for size, outputs, cells_, dim in zip(grid, (height, width), (rows, columns), (1, 2), strict=True)
    ]
    (row_index, row_weights, row_squares), (column_index, column_weights, column_squares) = found
    first = before + cells * torch.arange(batch, device=device)[:, None, None]
    lines = first[..., None] + row_index * across_B[..., None]
    index = lines[..., :, None] + column_index[..., None, :]
    slope = (support / spare.square())[..., None]
    parts = (row_weights, column_weights, row_weights * row_squares * slope, column_weights * column_squares * slope)
    return Windows(index.flatten(3).flatten(0, 2), *(part.flatten(0, 2) for part in parts))


def window_taps(size: int, stride: int) -> int:
    """Cells of a window along an axis of so many pixels: with an even stride outputs may lie between two cells."""
    return 1 if size == 1 else 9 if stride % 2 else 10


def outer(rows_Tt: Tensor, columns_Tt: Tensor) -> Tensor:
    """Products of two axes' weights, (T, t * t)."""
    return (rows_Tt[:, :, None] * columns_Tt[:, None, :]).flatten(1)


def _axis_windows(
    size: int, outputs: int, cells: list[tuple[int, int]], stride: int, level: Tensor, spare: Tensor, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices, weights and squared distances past the nearest cell's along one axis, (B, h, w, t) each."""
    device = level.device
    position = torch.arange(outputs, device=device, dtype=spare.dtype) * stride + (stride - 1) / 2
    window = torch.arange(window_taps(size, stride), device=device)
    indices, squares = [], []
    for number, (first, count) in enumerate(cells):
        length = 2.0**number
        place = (position + 0.5) / length - 0.5
        cell = (place - REACH).ceil().long()[:, None] + window
        squared = ((place[:, None] - cell) * length).square()
        inside = (cell >= first) & (cell < first + count) & (cell <= place[:, None] + REACH)
        if size == 1:
            inside, squared = torch.ones_like(inside), torch.zeros_like(squared)
        squared = squared.masked_fill(~inside, torch.inf)
        indices.append((cell - first).clamp(min=0).clamp(max=count - 1))
        squares.append(squared - squared.amin(-1, keepdim=True))
    which = level * outputs + torch.arange(outputs, device=device).view(-1, *[1] * (2 - dim))
    index, squared = F.embedding(which, torch.cat(indices)), F.embedding(which, torch.cat(squares))
    outside = squared.isinf()
    squared = squared.masked_fill(outside, 0.0)
    exponent = squared / (-2 * spare)[..., None]
    # Where the exponent is no number, neither is the weight.
    far = outside | (exponent < LEAST_EXPONENT)
    weights = exponent.masked_fill(far, 0.0).exp().masked_fill(far, 0.0)
    return index, weights, squared.masked_fill(far, 0.0)
