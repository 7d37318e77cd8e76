"""The weighted average over windows of cells, and its gradients by more sums of that kind."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .windows import Windows

__all__ = ["WindowAverage", "WindowWeights", "average", "spread", "support_gradient", "window_weights"]


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
    return WindowWeights(index, weights * scale[:, None], scale)


def average(cells: Tensor, chosen: WindowWeights) -> Tensor:
    """Average the cells of each window, (cells, C) -> (T, C)."""
    return _sum_windows(cells, chosen.cells, chosen.weights)


def spread(chosen: WindowWeights, gradient: Tensor, along: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Gradients for the cells and their mass.

    Sorted by cell these are sums over bags again, several times as fast as the bag's own gradient.

    Args:
        chosen: the windows' weights.
        gradient: the gradient of the averages, (T, C).
        along: its product with the averages, (T,).
        cells: number of cells.

    Returns:
        (cells, C) and (cells,).
    """
    found, order = chosen.cells.flatten().sort()
    tokens = order.div(chosen.cells.shape[1], rounding_mode="floor")
    weights = chosen.weights.to(gradient.dtype).flatten()[order]
    starts = torch.searchsorted(found, torch.arange(cells, device=found.device, dtype=found.dtype))
    for_cells, for_mass = (
        F.embedding_bag(tokens, values, starts, per_sample_weights=weights, mode="sum")
        for values in (gradient, -along[:, None])
    )
    return for_cells, for_mass.squeeze(1)


def support_gradient(
    cells: Tensor, mass: Tensor, support: Tensor, slopes: Windows, scale: Tensor, gradient: Tensor, along: Tensor
) -> Tensor:
    """Gradient for the supports, in their shape.

    Args:
        cells: sums of weighted tokens, (cells, C).
        mass: sums of token weights, (cells,).
        support: sigma in pixels, (B, height, width) of the outputs.
        slopes: windows, wider than those of the average: where a window ends matters more to the derivative.
        scale: as in :class:`WindowWeights`.
        gradient: the gradient of the averages, (T, C).
        along: its product with the averages, (T,).
    """
    index, (rows, columns), (row_slopes, column_slopes) = slopes.read(support)
    weights = (_outer(row_slopes, columns) + _outer(rows, column_slopes)) * scale[:, None]
    change = (_sum_windows(cells, index, weights) * gradient).sum(1)
    return (change - along * _sum_windows(mass[:, None], index, weights).squeeze(1)).view_as(support)


class WindowAverage(torch.autograd.Function):
    """:func:`average` of cells by their mass and the windows' supports, with the gradients above.

    Args of ``apply``: cells (cells, C), mass (cells,), support (B, height, width), the windows and those for the
    slopes. Returns (B * height * width, C).
    """

    @staticmethod
    def forward(ctx: Any, cells: Tensor, mass: Tensor, support: Tensor, windows: Windows, slopes: Windows) -> Tensor:
        """Average the windows."""
        chosen = window_weights(mass, support, windows)
        pooled = average(cells, chosen)
        ctx.save_for_backward(cells, mass, support, pooled, *chosen)
        ctx.slopes = slopes
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients for cells, mass and support."""
        cells, mass, support, pooled, *rest = ctx.saved_tensors
        chosen, gradient = WindowWeights(*rest), gradient.contiguous()
        along = (gradient * pooled).sum(1)
        for_support = support_gradient(cells, mass, support, ctx.slopes, chosen.scale, gradient, along)
        for_cells, for_mass = spread(chosen, gradient, along, len(cells))
        return for_cells, for_mass, for_support, None, None


def _sum_windows(cells: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """``sum_t weights_it cells[index_it]``, (T, C), without a gradient of its own."""
    cells, weights = cells.detach(), weights.to(cells.dtype)
    if cells.is_meta or torch.compiler.is_exporting():
        # ptflops and ONNX know products, not bags.
        return (weights[:, None, :] @ F.embedding(index, cells)).squeeze(1)
    return F.embedding_bag(index, cells, per_sample_weights=weights, mode="sum")


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows[:, :, None] * columns[:, None, :]).flatten(1)
