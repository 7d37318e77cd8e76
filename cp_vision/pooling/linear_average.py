"""The linear backend's average with its gate, and all their gradients, as one step of differentiation.

As a chain of PyTorch's own steps these would go over arrays of the map's size many more times, which is what takes
the time here. For the same reason a large batch is treated a few images at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .image_groups import group_size
from .scales import by_scale, make_cells, map_gradient, per_image, scale_shapes
from .window_average import average, slope_sums, spread, window_weights
from .windows import Windows

__all__ = ["average_windows"]


def average_windows(
    tokens: Tensor,
    weight: Tensor,
    mass: Tensor,
    support: Tensor,
    gate: Tensor | None,
    windows: Windows,
    slopes: Windows,
) -> Tensor:
    """Average the windows of all outputs.

    Args:
        tokens: (B, H, W, C), contiguous.
        weight: of every token, (B, H, W).
        mass: the sums of weights in every cell, (B, cells).
        support: sigma in pixels, (B, height, width) of the outputs.
        gate: (C,), how far every channel goes from the tokens to the averages; None for the averages themselves.
        windows: the windows.
        slopes: those for the gradient of the supports.

    Returns:
        (B, height, width, C).
    """
    if not torch.is_grad_enabled():
        return _pool(tokens, weight, mass, support, gate, windows, None, None)
    # Without a gradient for the supports there is no need for slopes.
    return _Average.apply(tokens, weight, mass, support, gate, windows, slopes if support.requires_grad else None)


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        weight: Tensor,
        mass: Tensor,
        support: Tensor,
        gate: Tensor | None,
        windows: Windows,
        slopes: Windows | None,
    ) -> Tensor:
        kept: list[Tensor] = []
        result = _pool(tokens, weight, mass, support, gate, windows, slopes, kept)
        ctx.save_for_backward(tokens, weight, gate, *kept)
        ctx.count, ctx.sloped = windows.count, slopes is not None
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight, gate, *kept = ctx.saved_tensors
        each = 5 if ctx.sloped else 3
        group = group_size(tokens)
        shapes = scale_shapes((tokens.shape[1], tokens.shape[2]), ctx.count)
        found = []
        for_tokens = None if group is None else torch.empty_like(tokens)
        for number, part in enumerate(_groups(tokens, group)):
            saved = kept[number * each : (number + 1) * each]
            into = None if for_tokens is None else for_tokens[part]
            whole, *rest = _part_gradients(gradient[part], tokens[part], weight[part], gate, shapes, saved, into)
            for_tokens = whole if for_tokens is None else for_tokens
            found.append(rest)
        for_weight, for_mass, for_support, for_gate = zip(*found, strict=True)
        return (
            for_tokens,
            torch.cat(for_weight),
            torch.cat(for_mass),
            torch.cat(for_support) if ctx.sloped else None,
            None if gate is None else sum(for_gate),
            None,
            None,
        )


def _groups(tokens: Tensor, size: int | None) -> list[slice]:
    """The images of each group."""
    return [slice(None)] if size is None else [slice(first, first + size) for first in range(0, len(tokens), size)]


def _pool(
    tokens: Tensor,
    weight: Tensor,
    mass: Tensor,
    support: Tensor,
    gate: Tensor | None,
    windows: Windows,
    slopes: Windows | None,
    kept: list[Tensor] | None,
) -> Tensor:
    """The averages; what their gradients take is added to ``kept``."""
    group = group_size(tokens)
    shapes = scale_shapes((tokens.shape[1], tokens.shape[2]), windows.count)
    joined = None if group is None else tokens.new_empty(*support.shape, tokens.shape[3])
    pooled = tokens
    for part in _groups(tokens, group):
        cells, own = make_cells(tokens[part], weight[part], windows.count), by_scale(mass[part], shapes)
        chosen = window_weights(own, support[part], windows)
        pooled = average(cells, chosen).view(*support[part].shape, tokens.shape[3])
        if kept is not None:
            kept += [pooled, chosen.cells, chosen.weights]
            if slopes is not None:
                kept += slope_sums(cells, own, support[part], slopes, chosen.scale)
        if joined is not None and gate is not None:
            torch.lerp(tokens[part], pooled, gate, out=joined[part])
        elif joined is not None:
            joined[part] = pooled
    if joined is not None or gate is None:
        return pooled if joined is None else joined
    # A pooled map that nobody else has takes the result.
    return pooled.lerp_(tokens, 1 - gate) if kept is None else torch.lerp(tokens, pooled, gate)


def _part_gradients(
    gradient: Tensor,
    tokens: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    shapes: list[tuple[int, int]],
    saved: list[Tensor],
    into: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients for the tokens, their weights, the mass, the supports and the gate.

    The gate, a factor of every channel, waits till channels are summed up; so the gradient itself is spread.
    """
    batch = tokens.shape[0]
    pooled, index, weights, *changes = saved
    gradient = gradient.contiguous()
    product = gradient * pooled
    along = _sum_channels(product, gate).flatten()
    for_gate = None if gate is None else product.sum((0, 1, 2))
    for_support = None
    if changes:
        torch.mul(gradient, changes[0].view_as(gradient), out=product)
        for_support = (_sum_channels(product, gate).flatten() - along * changes[1]).view(gradient.shape[:3])
    if for_gate is not None:
        for_gate = for_gate - torch.mul(gradient, tokens, out=product).sum((0, 1, 2))
    cells = batch * sum(rows * columns for rows, columns in shapes)
    for_cells, for_mass = spread(index, weights, gradient.flatten(0, 2), along, cells)
    whole = map_gradient(for_cells, batch, shapes)
    product = torch.mul(whole, tokens, out=product if product.shape == tokens.shape else None)
    for_weight = _sum_channels(product, gate)
    whole.mul_(weight[..., None])
    if gate is not None and into is None:
        # A table of one scale is nothing but the gradient.
        whole = whole.lerp_(gradient, 1 - gate) if len(shapes) == 1 else torch.lerp(gradient, whole, gate)
    elif gate is not None:
        whole = torch.lerp(gradient, whole, gate, out=into)
    elif into is not None:
        whole = into.copy_(whole)
    return whole, for_weight, per_image(for_mass, batch, shapes), for_support, for_gate


def _sum_channels(product: Tensor, gate: Tensor | None) -> Tensor:
    return product.sum(-1) if gate is None else product @ gate
