"""The scale space behind the linear backend: which blurred grids there are, and how a Gaussian is read off them.

Scale 0 is the map itself. From scale ``2l`` (cells of ``2**l`` pixels) the filter 1 3 3 1 makes scale ``2l + 1``, whose
cells lie between those of scale ``2l``; from there 1 2 1 with stride 2 makes scale ``2l + 2``, of cells twice as
large. A Gaussian of any support is then a weighted sum of a square window of the cells of one scale: the one whose
cells are neither too coarse for it nor too small for the window to hold it.

Source: our method, on the footing of Burt and Adelson, The Laplacian Pyramid as a Compact Image Code, 1983.
"""

from __future__ import annotations

import functools
import math

import numpy as np

__all__ = [
    "BLUR",
    "REDUCE",
    "axis_cells",
    "count_scales",
    "is_shifted",
    "scale_ends",
    "table_layout",
    "window_table",
    "window_taps",
]

BLUR = (1, 3, 3, 1)
REDUCE = (1, 2, 1)

# A scale serves supports up to these, in its cells: about where its error and that of the next one cross. The first
# two differ from the others of their kind, since pixels are no blurred cells; and outputs between pixels, as with an
# even stride, see the first two windows from another place.
_ENDS = (1.06, 1.7, 1.25, 1.75)
_ENDS_BETWEEN = (1.2, 1.62, 1.2, 1.75)

# Up to this support, one scale and larger windows are cheaper than two scales.
_END_ALONE = 1.52

# The weights are tabulated over the supports of a scale and read by linear interpolation. Scale 0 begins at
# support 0, where the kernel changes fastest.
_STEPS = (512, 64)

# Beyond this level the kernel of a cell no longer changes its shape, nor does a finer position in a cell matter.
_LAST_LEVEL = 5


def is_shifted(scale: int) -> bool:
    """Whether the cells of a scale lie between those of the one before."""
    return scale % 2 == 1


def scale_ends(count: int, half: bool) -> list[float]:
    """Largest support in pixels that is read off each of so many scales.

    Args:
        count: number of scales.
        half: whether outputs lie half a pixel behind the pixels, as with an even stride.
    """
    if count == 1:
        return [_END_ALONE]
    ends = _ENDS_BETWEEN if half else _ENDS
    return [ends[scale if scale < 2 else 2 + scale % 2] * 2.0 ** (scale // 2) for scale in range(count)]


def count_scales(sigma_max: float, half: bool) -> int:
    """How many scales supports up to ``sigma_max`` pixels need."""
    count = 1
    while scale_ends(count, half)[-1] < sigma_max:
        count += 1
    return count


def window_taps(count: int) -> tuple[int, int]:
    """Cells in a window along each axis, for an average and for its derivative by the support.

    The derivative takes more, since where a window ends matters more to it.
    """
    return (8, 10) if count == 1 else (6, 8)


def axis_cells(size: int, count: int) -> list[tuple[int, int]]:
    """First cell and number of cells of each scale along an axis.

    Blurring carries weight past the edge of the map, so the scales have cells outside it too.

    Args:
        size: pixels along the axis; an axis of one pixel isn't blurred.
        count: number of scales.
    """
    if size == 1:
        return [(0, 1)] * count
    cells = [(0, size)]
    for scale in range(1, count):
        first, number = cells[-1]
        if is_shifted(scale):
            cells.append((first - 1, number + 3))
        else:
            pad = reduce_padding(first)
            cells.append(((first - pad) // 2, (number + 2 * pad - 3) // 2 + 1))
    return cells


def reduce_padding(first: int) -> int:
    """Zeros on both sides before 1 2 1 with stride 2, so that its windows begin at an even cell.

    Of an odd first cell and an even last one this leaves out a 32nd of the last token's weight.
    """
    return 1 if first % 2 else 2


def table_layout(count: int) -> list[tuple[int, int, int]]:
    """How :func:`window_table` is laid out: of every scale its first row, its positions in a cell, and its steps.

    The weights for position p and step q of a scale stand in row ``first + p (steps + 1) + q``.
    """
    layout, row = [], 0
    for scale in range(count):
        positions, steps = 2 ** min(scale // 2, _LAST_LEVEL), _STEPS[scale > 0]
        layout.append((row, positions, steps))
        row += positions * (steps + 1)
    return layout


@functools.cache
def window_table(count: int, taps: int, half: bool, signed: bool) -> np.ndarray:
    """Weights of the windows of the first scales, along one axis.

    Args:
        count: number of scales.
        taps: cells in a window along the axis, an even number.
        half: whether outputs lie half a pixel behind the pixels, as with an even stride.
        signed: whether weights may be negative; if not, outputs are averages of tokens whatever the tokens weigh.

    Returns:
        (rows, taps), float32.
    """
    scales = (min(scale, 2 * _LAST_LEVEL + is_shifted(scale)) for scale in range(count))
    ends = scale_ends(max(count, 2 * _LAST_LEVEL + 2) if count > 1 else 1, half)
    tables = [
        _window_weights(scale, ends[scale - 1] if scale else 0.0, ends[scale], taps, half, signed).reshape(-1, taps)
        for scale in scales
    ]
    return np.concatenate(tables).astype(np.float32)


@functools.cache
def _window_weights(scale: int, begin: float, end: float, taps: int, half: bool, signed: bool) -> np.ndarray:
    """Weights of one scale's windows for supports from begin to end pixels, (positions, steps + 1, taps)."""
    level, shift = scale // 2, 0.0 if is_shifted(scale) else 0.5
    kernel, fine = _cell_kernel(scale)
    steps = _STEPS[scale > 0]
    support = np.linspace(begin, end, steps + 1) / 2**level
    # Everything below is in cells: pixels at (j + 0.5) / fine - shift, cell c at c.
    pixel = np.arange(-8 * fine, 9 * fine)
    weights = []
    for position in range(2**level):
        u = (position + (1.0 if half else 0.5)) / 2**level - shift
        cells = math.floor(u) + np.arange(taps) - (taps - 1) // 2
        start = ((cells + shift) * fine - len(kernel) / 2).round().astype(int) - pixel[0]
        basis = np.zeros((taps, len(pixel)))
        for cell in range(taps):
            basis[cell, start[cell] : start[cell] + len(kernel)] = kernel
        offset = (pixel + 0.5) / fine - shift - u
        squared = offset**2 - (offset**2).min()
        gaussian = np.exp(-squared / (2 * np.maximum(support, 1e-6)[:, None] ** 2))
        gaussian /= gaussian.sum(1, keepdims=True)
        weights.append(_fit(basis, gaussian, offset, signed) if scale else _cut(basis, gaussian))
    return np.stack(weights)


def _cut(basis: np.ndarray, gaussian: np.ndarray) -> np.ndarray:
    """The Gaussian's own values: at scale 0 a cell is a pixel."""
    inside = gaussian @ basis.T
    return inside / inside.sum(1, keepdims=True)


def _fit(basis: np.ndarray, gaussian: np.ndarray, offset: np.ndarray, signed: bool) -> np.ndarray:
    """Least squares under two constraints: weights that sum to one, and a kernel centred on the token.

    Unless signed, weights below zero, few and small as they are, are then held at zero and the others fitted again.
    """
    taps = len(basis)
    # A touch of ridge: the coarsest windows hardly tell their outermost cells apart.
    gram = basis @ basis.T
    gram += 1e-6 * gram.max() * np.eye(taps)
    constraints = np.stack([np.ones(taps), basis @ offset])
    targets = np.concatenate([basis @ gaussian.T, np.ones((1, len(gaussian))), np.zeros((1, len(gaussian)))])
    weights = np.zeros((len(gaussian), taps))
    held = np.zeros(weights.shape, dtype=bool)
    for _ in range(1 if signed else 3):
        for pattern in np.unique(held, axis=0):
            free, which = ~pattern, (held == pattern).all(1)
            system = np.block([[gram[free][:, free], constraints[:, free].T], [constraints[:, free], np.zeros((2, 2))]])
            rows = np.append(free, [True, True])
            weights[np.ix_(which, free)] = np.linalg.solve(system, targets[rows][:, which])[:-2].T
            weights[np.ix_(which, pattern)] = 0.0
        held |= weights < 0
    return weights if signed else weights.clip(min=0.0) / weights.clip(min=0.0).sum(1, keepdims=True)


def _cell_kernel(scale: int) -> tuple[np.ndarray, int]:
    """What a cell of a scale sums up: weights of the pixels around it, and the pixels in a cell's width."""
    kernel, fine = np.ones(1), 1
    for step in range(1, min(scale, 2 * (_LAST_LEVEL - 1) + is_shifted(scale)) + 1):
        taps = np.array(BLUR if is_shifted(step) else REDUCE, dtype=float)
        spread = np.zeros((len(taps) - 1) * fine + 1)
        spread[::fine] = taps / taps.sum()
        kernel = np.convolve(kernel, spread)
        fine *= 1 if is_shifted(step) else 2
    return kernel, fine
