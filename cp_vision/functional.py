"""The ContextPool operator: Gaussian-weighted averages with a learned weight and support per token."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BACKENDS", "context_pool"]

BACKENDS = ("auto", "exact")

# Weights below exp(-60) of a token's largest are made exact zeros. They change no digit of the result, and
# left alone they become denormal numbers, which a CPU multiplies 10 to 60 times slower.
_LOGIT_CUT = -60.0

# Supports below this are the identity in every float type; it keeps 1 / sigma**2 and its gradient finite.
_SIGMA_FLOOR = 1e-6


def context_pool(x: Tensor, log_weight: Tensor, sigma: Tensor, *, stride: int = 1, backend: str = "auto") -> Tensor:
    """Replace every token by a weighted Gaussian average of the tokens around it.

    With ``p`` the positions on the grid, in input pixels::

        y_i = sum_j a_ij x_j,   a_ij ~ exp(log_weight_j - |p_i - p_j|^2 / (2 sigma_i^2)),   sum_j a_ij = 1

    which is softmax attention over positions. With a stride, outputs stand at the centres of
    ``stride x stride`` windows.

    Args:
        x: tokens, (B, C, H, W).
        log_weight: logarithm of each token's pooling weight, (B, H, W). ``-inf`` leaves a token out; at least
            one token of every image must stay.
        sigma: support of each output token, standard deviation in input pixels, at least 0,
            (B, ceil(H / stride), ceil(W / stride)). Zero gives the nearest token itself; with an even stride
            that is the weighted mean of those equally near.
        stride: pixels between outputs.
        backend: ``"exact"`` computes the formula by a dense product, quadratic in pixels in time and memory;
            ``"auto"`` picks the fastest there is, today always ``"exact"``.

    Returns:
        (B, C, ceil(H / stride), ceil(W / stride)), dtype and memory format of ``x``. Logits are computed in
        float32 at least, also under autocast.

    Raises:
        ValueError: shapes that don't fit together, a stride below 1, an unknown backend.

    Source: Huang et al., Efficient Representation Learning via Adaptive Context Pooling, ICML 2022 (the
    learned weight and support). The stride is our extension.
    """
    _check(x, log_weight, sigma, stride, backend)
    (*_, height, width), coarse = x.shape, (sigma.shape[1], sigma.shape[2])
    # Logits need float32: in half precision a distance of 20 pixels already loses its last digit. Nothing up
    # to the product is an operation that autocast lowers.
    dtype = torch.promote_types(torch.promote_types(log_weight.dtype, sigma.dtype), torch.float32)
    distance = squared_distances((height, width), coarse, stride, x.device, dtype)
    if stride > 1:
        # No output need stand on a token: what the nearest ones share would swallow their weights.
        distance = distance - distance.amin(-1, keepdim=True)
    precision = 0.5 / sigma.to(dtype).flatten(1).clamp_min(_SIGMA_FLOOR).square()
    logits = log_weight.to(dtype).flatten(1)[:, None, :] - distance * precision[:, :, None]
    logits = logits - logits.amax(-1, keepdim=True).detach()
    weights = logits.masked_fill(logits < _LOGIT_CUT, float("-inf")).softmax(-1).to(x.dtype)
    tokens = x.flatten(2)
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        pooled = (weights @ tokens.mT).mT
    else:
        pooled = tokens @ weights.mT
    return pooled.unflatten(2, coarse).to(x.dtype)


def squared_distances(
    grid: tuple[int, int], coarse: tuple[int, int], stride: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Squared distances in pixels from every output position to every input position.

    Args:
        grid: input height and width.
        coarse: output height and width.
        stride: pixels between outputs.
        device: where the result lies.
        dtype: its float type; whole and half pixels up to 2048 are exact in float32.

    Returns:
        (coarse height * coarse width, height * width).
    """
    squared = []
    for size, out in zip(grid, coarse, strict=True):
        source = torch.arange(size, device=device, dtype=dtype)
        target = torch.arange(out, device=device, dtype=dtype) * stride + (stride - 1) / 2
        squared.append((target[:, None] - source).square())
    rows, columns = squared
    return (rows[:, None, :, None] + columns[None, :, None, :]).flatten(2).flatten(0, 1)


def coarse_grid(grid: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width of the output for an input grid and a stride, rounded up."""
    return -(-grid[0] // stride), -(-grid[1] // stride)


def _check(x: Tensor, log_weight: Tensor, sigma: Tensor, stride: int, backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if stride < 1:
        raise ValueError(f"stride {stride} must be 1 or more")
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"x must be (B, C, H, W) with at least one channel and pixel, got {tuple(x.shape)}")
    batch, _, height, width = x.shape
    coarse = coarse_grid((height, width), stride)
    if tuple(log_weight.shape) != (batch, height, width) or tuple(sigma.shape) != (batch, *coarse):
        raise ValueError(
            f"for x {tuple(x.shape)} and stride {stride}, log_weight must be {(batch, height, width)} and sigma "
            f"{(batch, *coarse)}; got {tuple(log_weight.shape)} and {tuple(sigma.shape)}"
        )
    if not (x.is_floating_point() and log_weight.is_floating_point() and sigma.is_floating_point()):
        raise ValueError(
            f"x, log_weight and sigma must be floating point, got {x.dtype}, {log_weight.dtype}, {sigma.dtype}"
        )
