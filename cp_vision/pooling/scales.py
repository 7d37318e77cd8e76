"""The scale space of a batch as one table of cells, and the gradient that leads from the cells back to the map.

The table holds scale after scale, every one of them as a map (B, rows, columns, C) of its own, so that filters and
windows read the cells where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .scale_space import BLUR, REDUCE, axis_cells, is_shifted, reduce_padding

__all__ = ["by_scale", "make_cells", "make_mass", "map_gradient", "per_image", "scale_shapes"]


def scale_shapes(grid: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """Rows and columns of every scale's cells for a map of this height and width."""
    rows, columns = (axis_cells(size, count) for size in grid)
    return [(row, column) for (_, row), (_, column) in zip(rows, columns, strict=True)]


def make_cells(tokens: Tensor, weight: Tensor, count: int) -> Tensor:
    """Sums of weighted tokens in the cells of all scales.

    Args:
        tokens: (B, H, W, C), contiguous.
        weight: of every token, (B, H, W).
        count: number of scales.

    Returns:
        (cells of the batch, C).
    """
    batch, height, width, channels = tokens.shape
    shapes = scale_shapes((height, width), count)
    if count == 1:
        return (tokens * weight[..., None]).flatten(0, 2)
    if torch.compiler.is_compiling():
        # A compiler writes the parts of a table at their places by itself, but not through views.
        image = (tokens * weight[..., None]).permute(0, 3, 1, 2)
        images = [image]
        for scale in range(1, count):
            images.append(_filter(images[-1], scale))
        return torch.cat([image.permute(0, 2, 3, 1).flatten(0, 2) for image in images])
    table = tokens.new_empty(batch * _cells(shapes), channels)
    maps = _maps(table, batch, shapes)
    torch.mul(tokens, weight[..., None], out=maps[0])
    for scale in range(1, count):
        maps[scale].copy_(_filter(maps[scale - 1].permute(0, 3, 1, 2), scale).permute(0, 2, 3, 1))
    return table


def map_gradient(table: Tensor, batch: int, shapes: list[tuple[int, int]]) -> Tensor:
    """The gradient for weighted tokens, (B, H, W, C), from that for the cells, which it uses up.

    Args:
        table: the gradient for the cells, (cells of the batch, C).
        batch: images in it.
        shapes: rows and columns of every scale.
    """
    maps = _maps(table, batch, shapes)
    gradient = maps[-1]
    for scale in range(len(shapes) - 1, 0, -1):
        through = _unfilter(gradient.permute(0, 3, 1, 2), scale, shapes[scale - 1])
        gradient = through.permute(0, 2, 3, 1).add_(maps[scale - 1])
    return gradient


def make_mass(weight: Tensor, count: int) -> Tensor:
    """Sums of token weights in the cells of all scales, (B, H, W) -> (B, cells), with a gradient of its own."""
    image = weight[:, None]
    grids = [image]
    for scale in range(1, count):
        image = _filter_one(image, scale)
        grids.append(image)
    return torch.cat([grid.flatten(1) for grid in grids], 1) if count > 1 else image.flatten(1)


def by_scale(mass: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
    """(B, cells) -> (cells of the batch,), in the order of the table."""
    if len(shapes) == 1:
        return mass.flatten()
    return torch.cat([part.flatten() for part in mass.split([rows * columns for rows, columns in shapes], 1)])


def per_image(mass: Tensor, batch: int, shapes: list[tuple[int, int]]) -> Tensor:
    """Undo :func:`by_scale`."""
    return torch.cat([part.flatten(1) for part in _maps(mass[:, None], batch, shapes)], 1)


def _cells(shapes: list[tuple[int, int]]) -> int:
    cells = 0
    for rows, columns in shapes:
        cells = cells + rows * columns
    return cells


def _maps(table: Tensor, batch: int, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """A table's scales as views, (B, rows, columns, C) each."""
    parts = table.split([batch * rows * columns for rows, columns in shapes])
    return [part.view(batch, *shape, part.shape[1]) for part, shape in zip(parts, shapes, strict=True)]


def _filter(image: Tensor, scale: int) -> Tensor:
    """One scale from the one before, both (B, C, rows, columns)."""
    weights, stride, padding = _kernel(image, scale, image.shape[2:])
    return F.conv2d(image, weights, stride=stride, padding=padding, groups=image.shape[1])


def _unfilter(gradient: Tensor, scale: int, shape: tuple[int, int]) -> Tensor:
    """The gradient of :func:`_filter` for its input, which has this shape.

    The convolution's own takes some five times as long.
    """
    weights, stride, padding = _kernel(gradient, scale, shape)
    channels = gradient.shape[1]
    if is_shifted(scale):
        # The taps read the same from both ends.
        return F.conv2d(gradient, weights, groups=channels)
    left_over = [
        before + 2 * pad - tap - step * (size - 1)
        for before, pad, tap, step, size in zip(
            shape, padding, weights.shape[2:], stride, gradient.shape[2:], strict=True
        )
    ]
    return F.conv_transpose2d(gradient, weights, None, stride, padding, left_over, channels)


def _filter_one(image: Tensor, scale: int) -> Tensor:
    """:func:`_filter` of a single channel, for which convolutions are slow.

    Binomial taps are those of boxes applied in turn.
    """
    taps, stride, padding = _taps(scale)
    single = [size == 1 for size in image.shape[2:]]
    for box in range(1, taps):
        image = F.avg_pool2d(
            image,
            [1 if one else 2 for one in single],
            stride=[1 if one or box < taps - 1 else stride for one in single],
            padding=[0 if one or box > padding else 1 for one in single],
        )
    return image


def _kernel(image: Tensor, scale: int, shape: Sequence[int]) -> tuple[Tensor, list[int], list[int]]:
    """Weights (C, 1, rows, columns), stride and padding that make a scale from one of this shape.

    An axis of a single pixel isn't filtered.
    """
    _, stride, padding = _taps(scale)
    taps = BLUR if is_shifted(scale) else REDUCE
    weights = image.new_tensor(taps) / sum(taps)
    single = [size == 1 for size in shape]
    rows, columns = (weights.new_ones(1) if one else weights for one in single)
    return (
        (rows[:, None] * columns).expand(image.shape[1], 1, -1, -1),
        [1 if one else stride for one in single],
        [0 if one else padding for one in single],
    )


def _taps(scale: int) -> tuple[int, int, int]:
    """Number of taps, stride and padding of the filter that makes a scale."""
    if is_shifted(scale):
        return len(BLUR), 1, len(BLUR) - 1
    # Where the cells of a scale begin is the same on every axis.
    before, _ = axis_cells(2, scale)[-1]
    return len(REDUCE), 2, reduce_padding(before)
