"""The weighted average over windows of cells, and its gradients by more sums of that kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .windows import Windows

__all__ = ["WindowAverage"]


class WindowAverage(torch.autograd.Function):
    """Average the cells of each token's window: ``y_i = sum_t h_it X_it / sum_t h_it m_it``.

    X are sums of weighted tokens, m the sums of their weights, h the window's weights, which depend on the support.

    Args of ``apply``:
        cells: X, (cells, C).
        mass: m, (cells,).
        support: sigma in pixels, (B, height, width) of the outputs.
        windows: the windows to average.
        slopes: wider windows, for the derivative by the support: where a window ends matters more to it.

    Returns:
        (B * height * width, C).
    """

    @staticmethod
    def forward(ctx: Any, cells: Tensor, mass: Tensor, support: Tensor, windows: Windows, slopes: Windows) -> Tensor:
        """Average the windows."""
        index, rows, columns, *_ = windows.read(support)
        weights = _outer(rows, columns)
        total = sum_windows(mass[:, None], index, weights).squeeze(1)
        # A window without any weight gives zeros.
        share = total.reciprocal().masked_fill(total == 0, 0.0)
        weights = weights * share[:, None]
        pooled = sum_windows(cells, index, weights)
        ctx.save_for_backward(cells, mass, support, index, weights, share, pooled)
        ctx.slopes = slopes
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients for cells, mass and support."""
        cells, mass, support, index, weights, share, pooled = ctx.saved_tensors
        gradient = gradient.contiguous()
        along = (gradient * pooled).sum(1)
        for_cells = for_mass = for_support = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            for_cells, for_mass = _spread(index, weights, gradient, -along, len(cells))
        if ctx.needs_input_grad[2]:
            index, rows, columns, row_slopes, column_slopes = ctx.slopes.read(support)
            weights = (_outer(row_slopes, columns) + _outer(rows, column_slopes)) * share[:, None]
            change = sum_windows(cells, index, weights)
            for_support = (gradient * change).sum(1) - along * sum_windows(mass[:, None], index, weights).squeeze(1)
            for_support = for_support.view_as(support)
        return for_cells, for_mass, for_support, None, None


def sum_windows(cells: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """``sum_t weights_it cells[index_it]``, (T, C)."""
    weights = weights.to(cells.dtype)
    if cells.is_meta or torch.compiler.is_exporting():
        # ptflops and ONNX know products, not bags.
        return (weights[:, None, :] @ cells[index]).squeeze(1)
    return F.embedding_bag(index, cells, per_sample_weights=weights, mode="sum")


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows[:, :, None] * columns[:, None, :]).flatten(1)


def _spread(index: Tensor, weights: Tensor, gradient: Tensor, share: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Give ``weights_it gradient_i`` and ``weights_it share_i`` to each cell, (cells, C) and (cells,).

    Sorted by cell these are sums over bags again, several times as fast as the bag's own gradient.
    """
    window = index.shape[1]
    found, order = index.flatten().sort()
    tokens = order.div(window, rounding_mode="floor")
    weights = weights.to(gradient.dtype).flatten()[order]
    starts = torch.searchsorted(found, torch.arange(cells, device=index.device, dtype=index.dtype))
    values = (gradient, share[:, None])
    whole, single = (F.embedding_bag(tokens, v, starts, per_sample_weights=weights, mode="sum") for v in values)
    return whole, single.squeeze(1)
