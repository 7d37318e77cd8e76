"""Adaptive context pooling of token sequences.

Shapes: B batch, N tokens, C channels: ``x_BNC``, pooled as a map of height 1, ``x_BC1N``; ``padding_mask_BN``.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from .context_pool_2d import ContextPool2d, record_call

__all__ = ["ContextPool1d"]


class ContextPool1d(ContextPool2d):
    """Adaptive context pooling of a token sequence, (B, N, C) -> (B, ceil(N/stride), C).

    Positions are the indices of the sequence, so supports are in tokens; the arguments are those of
    :class:`ContextPool2d`, with L = N. Its other methods take the sequence as a map of height 1, (B, C, 1, N).
    An image transformer's tokens lie on a grid: use :class:`ContextPool2d` there.

    Raises:
        ValueError: an argument outside its range.

    Source: as :class:`ContextPool2d`; the mask is our extension.
    """

    # On a map of height 1 a 3 x 3 kernel would use its middle row alone.
    _kernel = (1, 3)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Pool a sequence.

        Args:
            x: (B, N, C).
            padding_mask: (B, N), True where a token is padding. Padding gives to no other token, and comes
                out as it went in with stride 1. A sequence may be padding alone; it comes out as zeros with larger
                strides.

        Returns:
            (B, ceil(N/stride), C).

        Raises:
            ValueError: x has another number of dimensions or channels or no tokens, the mask another shape or type.
        """
        if isinstance(x, fx.Proxy):
            return record_call(self, x, padding_mask)
        if x.ndim != 3 or x.shape[2] != self.channels or x.shape[1] == 0:
            raise ValueError(f"expected (B, N, {self.channels}) with at least one token, got {tuple(x.shape)}")
        if padding_mask is None:
            return super().forward(x.mT.unsqueeze(2)).squeeze(2).mT
        if padding_mask.shape != x.shape[:2] or padding_mask.dtype != torch.bool:
            raise ValueError(
                f"padding_mask must be bool {tuple(x.shape[:2])}, got {padding_mask.dtype} {tuple(padding_mask.shape)}"
            )
        image = x.masked_fill(padding_mask[..., None], 0).mT.unsqueeze(2)
        log_weight, sigma = self.weight_and_support(image)
        # A sequence of padding alone has equal weights, since no average of nothing has a gradient.
        left_out = padding_mask & ~padding_mask.all(1, keepdim=True)
        log_weight = log_weight.masked_fill(left_out[:, None], float("-inf"))
        pooled = self.pool(image, log_weight, sigma).squeeze(2).mT
        return torch.where(padding_mask[..., None], x, pooled) if self.stride == 1 else pooled
