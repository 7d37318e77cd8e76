"""The ContextPool operator: Gaussian-weighted averages with a learned weight and support per token.

Shapes: B batch, C channels, H x W grid of the input, h x w = ceil(H/stride) x ceil(W/stride) grid of the output.
``x_BCHW`` tokens, ``log_weight_BHW`` u, ``sigma_Bhw`` supports in input pixels, ``gate_C``; the result is ``y_BChw``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .exact import exact_pool, under_transform
from .linear import linear_pool

__all__ = ["BACKENDS", "check_backend", "context_pool", "gated_context_pool", "uses_linear"]

BACKENDS = ("auto", "exact", "linear")

# With larger strides an output may lie so far beyond the map's edge that its window reaches nothing.
_LINEAR_STRIDES = 8

# Up to this many products per channel, as on a map of 12 x 12, "auto" takes the exact product.
_EXACT_PRODUCTS = 144 * 144


def context_pool(
    x: Tensor,
    log_weight: Tensor,
    sigma: Tensor,
    *,
    stride: int = 1,
    backend: str = "auto",
    sigma_max: float | None = None,
) -> Tensor:
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
        backend: ``"exact"`` computes the formula, in time quadratic in pixels; ``"linear"`` approximates it in
            time and memory linear in pixels, at strides up to 8. With equal weights its kernels are within 5 % of
            the Gaussian's in L1 (7 % at strides above 4), and results of log weights between -2 and 2 nearly so;
            the error grows with the spread of the weights, without a bound.
            ``"auto"`` is exact on small maps, up to 12 x 12 pixels at stride 1, where that is as fast, and at
            strides above 8, and linear on larger ones.
        sigma_max: the largest support there can be, in pixels, where it is known beforehand: the linear backend
            then makes no coarser grids than it needs. Larger supports count as this one there. The exact backend
            doesn't use it.

    Returns:
        (B, C, ceil(H / stride), ceil(W / stride)), dtype and memory format of ``x``. Logits are computed in
        float32 at least, also under autocast.

    Raises:
        ValueError: shapes that don't fit together, tensors that are not floating point, a stride that is no whole
            number or below 1, an unknown backend, or the linear one with a stride above 8, a ``sigma_max`` that is
            not above 0 or not finite.

    Source: Huang et al., Efficient Representation Learning via Adaptive Context Pooling, ICML 2022 (the
    learned weight and support). The stride and the linear backend are our extensions.
    """
    return gated_context_pool(x, log_weight, sigma, None, stride, backend, sigma_max)


def gated_context_pool(
    x: Tensor,
    log_weight: Tensor,
    sigma: Tensor,
    gate: Tensor | None,
    stride: int,
    backend: str,
    sigma_max: float | None,
    masked: bool = True,
) -> Tensor:
    """``x + gate * (context_pool(x) - x)``, in fewer passes than that.

    Args:
        gate: of every channel, (C,), with stride 1; None for the pool alone.
        masked: whether log weights may be ``-inf``.

    The other arguments, the result and the errors are those of :func:`context_pool`.
    """
    _check(x, log_weight, sigma, stride, backend, sigma_max)
    if uses_linear((x.shape[2], x.shape[3]), stride, backend):
        return linear_pool(x, log_weight, sigma, gate, stride, sigma_max, masked)
    pooled = exact_pool(x, log_weight, sigma, stride, masked)
    if gate is None:
        return pooled
    # Without gradients the result overwrites the pooled map, which nothing else refers to.
    keep = torch.is_grad_enabled() or torch.compiler.is_compiling() or under_transform()
    return torch.lerp(x, pooled, gate.to(x.dtype)[:, None, None], out=None if keep else pooled)


def uses_linear(grid: tuple[int, int], stride: int = 1, backend: str = "auto") -> bool:
    """Whether a map is pooled by the linear backend.

    ``"auto"`` takes it above 12 x 12 pixels at stride 1, where it overtakes the exact one, and at strides up to 8.
    Exported with dynamic sizes it is always linear, since one graph serves them all.

    Args:
        grid: height and width of the input.
        stride: pixels between outputs.
        backend: the backend that was asked for.
    """
    if backend != "auto":
        return backend == "linear"
    if stride > _LINEAR_STRIDES:
        return False
    if any(isinstance(size, torch.SymInt) for size in grid):
        return True
    height, width = coarse_grid(grid, stride)
    return grid[0] * grid[1] * height * width > _EXACT_PRODUCTS


def coarse_grid(grid: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width of the output for an input grid and a stride, rounded up."""
    return -(-grid[0] // stride), -(-grid[1] // stride)


def check_backend(backend: str, stride: int) -> None:
    """Raise a ValueError unless there is this backend and it takes this stride."""
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if backend == "linear" and stride > _LINEAR_STRIDES:
        raise ValueError(f"backend 'linear' takes strides up to {_LINEAR_STRIDES}, got {stride}; use 'exact' or 'auto'")


def _check(x: Tensor, log_weight: Tensor, sigma: Tensor, stride: int, backend: str, sigma_max: float | None) -> None:
    if not isinstance(stride, int) or isinstance(stride, bool) or stride < 1:
        raise ValueError(f"stride {stride!r} must be a whole number, 1 or more")
    check_backend(backend, stride)
    if sigma_max is not None and not 0 < sigma_max < math.inf:
        raise ValueError(f"sigma_max {sigma_max} must be above 0 and finite")
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
