"""Context pooling by its formula: a softmax over distances and weights, and a product.

Shapes: B batch, C channels, H x W grid of the input (M = H W tokens), h x w grid of the output (N = h w tokens).
``x_BCHW`` tokens, ``log_weight_BHW``, ``sigma_Bhw``, squared distances (N, M), weights (B, N, M), result (B, C, h, w).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .exact_on_gpu import can_fuse, fused_pool

__all__ = ["axis_distances", "exact_pool", "squared_distances", "under_transform"]

# Smaller weights, which change no digit of the result, are made exact zeros: many of them are denormal numbers, which
# some CPUs multiply 10 to 60 times slower.
_LEAST_WEIGHT = 1e-27

# Supports below the first are the identity in every float type, those above the second the weighted mean; between them
# 1 / sigma**2 and its gradient are finite.
_LEAST_SIGMA, _MOST_SIGMA = 1e-6, 1e9

# More weights than this (256 MiB of float32) are made and used in blocks of output rows, and made again for the
# backward pass, so that memory is linear in the tokens.
_BLOCK_WEIGHTS = 1 << 26


def exact_pool(x: Tensor, log_weight: Tensor, sigma: Tensor, stride: int, masked: bool = True) -> Tensor:
    """Compute :func:`.gated_context_pool` exactly, without a gate; arguments as there, unchecked."""
    batch, _, height, width = x.shape
    rows, transformed = sigma.shape[1], under_transform()
    if x.is_cuda and not transformed and can_fuse(x, rows * sigma.shape[2]):
        coarse, float32 = (rows, sigma.shape[2]), torch.float32
        nearest = [axis.amin(1) for axis in axis_distances((height, width), coarse, stride, x.device, float32)]
        return fused_pool(x, log_weight.float(), _precision(sigma.float()), stride, (nearest[0], nearest[1]))
    # Neither graphs nor transforms can make the weights again for the backward pass.
    if transformed or type(x) is not Tensor or torch.compiler.is_compiling():
        return _pool_rows(x, log_weight, sigma, stride, masked, 0)
    # Searching for the nearest that stay takes twice as long as all else.
    masked = masked and (x.is_meta or bool((log_weight == -torch.inf).any()))
    block = max(1, _BLOCK_WEIGHTS // max(1, batch * height * width * sigma.shape[2]))
    if block >= rows:
        return _pool_rows(x, log_weight, sigma, stride, masked, 0)
    parts = [
        checkpoint(_pool_rows, x, log_weight, part, stride, masked, index * block, use_reentrant=False)
        for index, part in enumerate(sigma.split(block, 1))
    ]
    return torch.cat(parts, 2)


def under_transform() -> bool:
    """Whether a transform of ``torch.func`` (vmap, grad, ...) is running."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _pool_rows(x: Tensor, log_weight: Tensor, sigma: Tensor, stride: int, masked: bool, first: int) -> Tensor:
    """Pool for a block of output rows that begins at row ``first``."""
    # Logits need float32: in half precision a distance of 20 pixels already loses its last digit. Nothing up
    # to the product is an operation that autocast lowers.
    dtype = torch.promote_types(torch.promote_types(log_weight.dtype, sigma.dtype), torch.float32)
    coarse = (sigma.shape[1], sigma.shape[2])
    distance = squared_distances((x.shape[2], x.shape[3]), coarse, stride, x.device, dtype, first)
    precision, weights = _precision(sigma.to(dtype)).flatten(1), log_weight.to(dtype).flatten(1)[:, None, :]
    if masked or stride > 1:
        # No output need stand on a token that stays: what the nearest ones share would swallow their weights.
        there = distance.masked_fill(weights == -torch.inf, torch.inf) if masked else distance
        distance = distance - there.amin(-1, keepdim=True)
    logits = weights - distance * precision[:, :, None]
    shares = F.threshold(logits.softmax(-1), _LEAST_WEIGHT, 0.0).to(x.dtype)
    tokens = x.flatten(2)
    # With channels last the product of the other order; its strides say so under vmap, too.
    pooled = (shares @ tokens.mT).mT if tokens.stride(1) == 1 else tokens @ shares.mT
    return pooled.unflatten(2, coarse).to(x.dtype)


def squared_distances(
    grid: tuple[int, int],
    coarse: tuple[int, int],
    stride: int,
    device: torch.device,
    dtype: torch.dtype,
    first: int = 0,
) -> Tensor:
    """Squared distances in pixels from every output position to every input position.

    Args:
        grid: input height and width.
        coarse: output height and width.
        stride: pixels between outputs.
        device: where the result lies.
        dtype: its float type; whole and half pixels up to 2048 are exact in float32.
        first: first output row.

    Returns:
        (coarse height * coarse width, height * width).
    """
    rows, columns = axis_distances(grid, coarse, stride, device, dtype, first)
    return (rows[:, None, :, None] + columns[None, :, None, :]).flatten(2).flatten(0, 1)


def axis_distances(
    grid: tuple[int, int],
    coarse: tuple[int, int],
    stride: int,
    device: torch.device,
    dtype: torch.dtype,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """The two axes' parts of :func:`squared_distances`: (coarse height, height) and (coarse width, width)."""
    squared = []
    for size, out, begin in zip(grid, coarse, (first, 0), strict=True):
        source = torch.arange(size, device=device, dtype=dtype)
        target = (torch.arange(out, device=device, dtype=dtype) + begin) * stride + (stride - 1) / 2
        squared.append((target[:, None] - source).square())
    return squared[0], squared[1]


def _precision(sigma: Tensor) -> Tensor:
    return 0.5 / sigma.clamp(_LEAST_SIGMA, _MOST_SIGMA).square()
