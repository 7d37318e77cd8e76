"""The exact pool on a GPU: its formula as attention with scores made on the fly, in memory linear in the tokens.

Shapes: B batch, C channels in heads of D, M input and N output tokens: N empty queries and M empty keys of width 16,
whose scores are computed from their positions, over values (B, C/D, M, D).

Not run on a GPU here; the tests run it on the CPU, where PyTorch doesn't fuse it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

__all__ = ["can_fuse", "fused_pool"]

# From this many products of input and output tokens, one head of channels.
_LEAST_PRODUCTS = 1024 * 1024
_HEADS = (64, 32, 16)


def can_fuse(x: Tensor, outputs: int) -> bool:
    """Whether the fused kernel suits this input (B, C, H, W) and number of output tokens."""
    large = x.shape[2] * x.shape[3] * outputs >= _LEAST_PRODUCTS
    return x.is_cuda and large and x.dtype != torch.float64 and any(x.shape[1] % head == 0 for head in _HEADS)


def fused_pool(x: Tensor, log_weight: Tensor, precision: Tensor, stride: int, nearest: tuple[Tensor, Tensor]) -> Tensor:
    """Pool by attention whose scores are ``u_j - (|p_i - p_j|^2 - n_i) / (2 sigma_i^2)``, in float32.

    Args:
        x: tokens, (B, C, H, W), C a multiple of 16; half precision or float32.
        log_weight: u, (B, H, W), float32.
        precision: ``1 / (2 sigma^2)``, (B, height, width) of the outputs, float32.
        stride: pixels between outputs.
        nearest: n, squared distance from output rows and columns to their nearest pixels, (height,) and (width,).

    Returns:
        (B, C, height, width).
    """
    batch, channels, _, columns = x.shape
    outputs, across = precision.shape[1:], precision.shape[2]
    head = next(head for head in _HEADS if channels % head == 0)
    weights, sharpness = log_weight.flatten(1), precision.flatten(1)
    rows_near, columns_near = nearest

    def score(_: Tensor, image: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row, column = query // across, query % across
        down = row * stride + (stride - 1) / 2 - key // columns
        right = column * stride + (stride - 1) / 2 - key % columns
        squared = down * down - rows_near[row] + right * right - columns_near[column]
        return weights[image, key] - squared * sharpness[image, query]

    tokens = x.flatten(2).unflatten(1, (channels // head, head)).mT
    heads = (batch, channels // head)
    pooled = _attention(x.is_cuda)(
        x.new_zeros(*heads, outputs.numel(), 16), x.new_zeros(*heads, tokens.shape[2], 16), tokens, score_mod=score
    )
    return pooled.mT.reshape(batch, channels, *outputs)


@functools.cache
def _attention(compiled: bool) -> Callable[..., Tensor]:
    attention: Any = flex_attention
    return torch.compile(attention, dynamic=False) if compiled else attention
