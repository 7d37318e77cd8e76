"""The weighted average over windows of cells, and what its gradients take: more sums of that kind."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .windows import Windows

__all__ = ["WindowWeights", "average", "slope_sums", "spread", "window_weights"]


class WindowWeights(NamedTuple):
    """Windows of T output tokens, K cells each: where they lie and their share in the token's average."""

    cells: Tensor  # (T, K)
    weights: Tensor  # (T, K), for each token the window's weights over the sum of weights in it
    scale: Tensor  # (T,), one over that sum


def window_weights(mass: Tensor, support: Tensor, windows: Windows) -> WindowWeights:
    """Weights ``h_it / sum_t h_it m_it`` of every window.

    Args:
        mass: m, the sum of token weights in every cell, (cells,).
        support: sigma in pixels, (B, height, width) of the outputs.
        windows: the windows, h being their weights.
    """
    index, (rows, columns), _ = windows.read(support)
    weights = _outer(rows, columns)
    total = _sum_windows(mass[:, None], index, weights).squeeze(1)
    # A window without any weight gives zeros.
    scale = total.reciprocal().masked_fill(total == 0, 0.0)
    return WindowWeights(index, weights.mul_(scale[:, None]), scale)


def average(cells: Tensor, chosen: WindowWeights) -> Tensor:
    """Average the cells of each window, (cells, C) -> (T, C)."""
    return _sum_windows(cells, chosen.cells, chosen.weights)


def spread(index: Tensor, weights: Tensor, gradient: Tensor, along: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Gradients for the cells and their mass.

    Sorted by cell these are sums over bags again, several times as fast as the bag's own gradient.

    Args:
        index: the windows' cells, (T, K).
        weights: their shares in the averages, (T, K).
        gradient: the gradient of the averages, (T, C).
        along: its product with the averages, (T,).
        cells: number of cells.

    Returns:
        (cells, C) and (cells,).
    """
    found, order = index.flatten().sort()
    tokens = order.div(index.shape[1], rounding_mode="floor")
    weights = weights.to(gradient.dtype).flatten()[order]
    starts = torch.searchsorted(found, torch.arange(cells, device=found.device, dtype=found.dtype))
    for_cells, for_mass = (
        F.embedding_bag(tokens, values, starts, per_sample_weights=weights, mode="sum")
        for values in (gradient, -along[:, None])
    )
    return for_cells, for_mass.squeeze(1)


def slope_sums(cells: Tensor, mass: Tensor, support: Tensor, slopes: Windows, scale: Tensor) -> tuple[Tensor, Tensor]:
    """How the windows' sums change with the supports, over the windows' weights: those of cells, and of mass.

    Args:
        cells: sums of weighted tokens, (cells, C).
        mass: sums of token weights, (cells,).
        support: sigma in pixels, (B, height, width) of the outputs.
        slopes: windows, wider than those of the average: where a window ends matters more to the derivative.
        scale: as in :class:`WindowWeights`.

    Returns:
        (T, C) and (T,).
    """
    index, (rows, columns), (row_slopes, column_slopes) = slopes.read(support)
    scale = scale[:, None]
    weights = _outer(row_slopes * scale, columns) + _outer(rows * scale, column_slopes)
    return _sum_windows(cells, index, weights), _sum_windows(mass[:, None], index, weights).squeeze(1)


def _sum_windows(cells: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """``sum_t weights_it cells[index_it]``, (T, C), without a gradient of its own."""
    cells, weights = cells.detach(), weights.to(cells.dtype)
    if cells.is_meta or torch.compiler.is_exporting():
        # ptflops and ONNX know products, not bags.
        return (weights[:, None, :] @ F.embedding(index, cells)).squeeze(1)
    return F.embedding_bag(index, cells, per_sample_weights=weights, mode="sum")


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows[:, :, None] * columns[:, None, :]).flatten(1)
