"""The grids behind the linear backend: a map of weighted tokens, and coarser ones of cells twice as large each.

Shapes: B batch, C channels, H x W pixels, n cells of a level along an axis. ``tokens_BCHW`` and ``level_BCnn``.

Level 0 is the map itself. The filter 1 5 10 10 5 1 with stride 2 makes each level of the one before. The centre of
cell c of level l lies at pixel ``2**l (c + 1/2) - 1/2``. Filtering carries weight past the edge of the map, so
coarser levels have cells outside it, too.

Source: our method, on the footing of Burt and Adelson, The Laplacian Pyramid as a Compact Image Code, 1983.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "FILTER",
    "LEVEL_END",
    "axis_cells",
    "build_pyramid",
    "count_levels",
    "level_ends",
    "level_variance",
    "pyramid_gradient",
]

FILTER = (1, 5, 10, 10, 5, 1)

# A level serves supports up to so many of its cells: there its window becomes too small, and the next level's cells
# are no longer too coarse.
LEVEL_END = 1.75


def count_levels(sigma_max: float) -> int:
    """How many levels supports up to ``sigma_max`` pixels need."""
    count = 1
    while level_ends(count)[-1] < sigma_max:
        count += 1
    return count


def level_ends(count: int) -> list[float]:
    """Largest support in pixels that is read off each of so many levels."""
    return [LEVEL_END * 2.0**level for level in range(count)]


def level_variance(level: int) -> float:
    """Variance, in pixels squared, of what a cell of this level has averaged: that of the filter is 5/4 cells."""
    return 1.25 * (4.0**level - 1) / 3


def axis_cells(size: int, count: int) -> list[tuple[int, int]]:
    """First cell and number of cells of each level along an axis.

    Args:
        size: pixels along the axis; an axis of one pixel isn't filtered.
        count: number of levels.
    """
    if size == 1:
        return [(0, 1)] * count
    cells = [(0, size)]
    for _ in range(1, count):
        first, number = cells[-1]
        # All cells whose filter reaches the level before.
        start = (first - 2) // 2
        cells.append((start, (first + number + 1) // 2 - start + 1))
    return cells


def build_pyramid(tokens_BCHW: Tensor, count: int) -> list[Tensor]:
    """Make so many levels of a map, (B, C, n, n) each; the first is the map."""
    grid = (tokens_BCHW.shape[2], tokens_BCHW.shape[3])
    kernel, stride = _filter(tokens_BCHW, grid)
    levels = [tokens_BCHW]
    for level in range(1, count):
        padded = F.pad(levels[-1], _padding(grid, level))
        levels.append(F.conv2d(padded, kernel, stride=stride, groups=tokens_BCHW.shape[1]))
    return levels


def pyramid_gradient(for_levels: list[Tensor], grid: tuple[int, int]) -> Tensor:
    """Gradient of a loss by the map, (B, C, H, W), given those by all levels that were made of it.

    Args:
        for_levels: (B, C, n, n) each.
        grid: height and width of the map.
    """
    kernel, stride = _filter(for_levels[0], grid)
    whole = for_levels[-1]
    for level in range(len(for_levels) - 1, 0, -1):
        left, right, above, below = _padding(grid, level)
        padded = F.conv_transpose2d(whole, kernel, stride=stride, groups=whole.shape[1])
        height, width = padded.shape[2:]
        whole = for_levels[level - 1] + padded[:, :, above : height - below, left : width - right]
    return whole


def _filter(tokens_BCHW: Tensor, grid: tuple[int, int]) -> tuple[Tensor, list[int]]:
    """Kernel, (C, 1, k, k), and stride of the filter that makes a level of the one before."""
    line = torch.tensor(FILTER, dtype=tokens_BCHW.dtype, device=tokens_BCHW.device) / sum(FILTER)
    # An axis of one pixel keeps its cell.
    rows, columns = (line.new_ones(1) if size == 1 else line for size in grid)
    kernel = (rows[:, None] * columns).expand(tokens_BCHW.shape[1], 1, -1, -1)
    return kernel, [1 if size == 1 else 2 for size in grid]


def _padding(grid: tuple[int, int], level: int) -> list[int]:
    """Zeros left, right, above and below the level before, so that the filter makes exactly the cells of this one."""
    pads = []
    for size in reversed(grid):
        (first, number), (start, count) = axis_cells(size, level + 1)[-2:]
        pads += [0, 0] if size == 1 else [first - (2 * start - 2), 2 * (start + count - 1) + 4 - (first + number)]
    return pads
