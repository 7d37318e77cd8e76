"""Attention heads that stay.

Shapes: B batch, C channels, H x W grid, P prefix tokens, N = P + H W tokens, k heads, d channels of a head, m = k d.
``x_BCHW`` the map, ``x_BPC`` its prefix tokens.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["KeptHeads"]


class KeptHeads(nn.Module):
    """What k heads of a self-attention give each token, before the projection behind them.

    Args:
        weight_3kdC: of queries, keys and values, each with its heads one after the other.
        bias_3kd: likewise; None is zero.
        heads: k.
        q_norm: of the queries of a head.
        k_norm: of the keys of a head.

    Attributes:
        size: m.
    """

    def __init__(
        self, weight_3kdC: Tensor, bias_3kd: Tensor | None, heads: int, q_norm: nn.Module, k_norm: nn.Module
    ) -> None:
        super().__init__()
        self.heads, self.size = heads, len(weight_3kdC) // 3
        bias = weight_3kdC.new_zeros(len(weight_3kdC)) if bias_3kd is None else bias_3kd
        self.weight, self.bias = (nn.Parameter(part.detach().clone()) for part in (weight_3kdC, bias))
        self.q_norm, self.k_norm = copy.deepcopy(q_norm), copy.deepcopy(k_norm)

    def some(self, which_k: Tensor) -> KeptHeads:
        """A copy with the heads of these numbers."""
        weight, bias = (part.unflatten(0, (3, self.heads, -1))[:, which_k] for part in (self.weight, self.bias))
        return KeptHeads(weight.flatten(0, 2), bias.flatten(), len(which_k), self.q_norm, self.k_norm)

    @property
    def thinnable(self) -> int:
        """Channels of which each head can keep some; 0 where norms know of all."""
        plain = isinstance(self.q_norm, nn.Identity) and isinstance(self.k_norm, nn.Identity)
        return self.size // self.heads if plain else 0

    def thin(self, channels: int) -> KeptHeads:
        """A copy whose heads have so many channels each; which, and of what weights, a fit tells."""
        weight, bias = (part.unflatten(0, (3, self.heads, -1))[:, :, :channels] for part in (self.weight, self.bias))
        return KeptHeads(weight.flatten(0, 2), bias.flatten(), self.heads, self.q_norm, self.k_norm)

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What they give each token: (B, m, H, W), and (B, P, m) where there are prefix tokens."""
        tokens = x_BCHW.flatten(2).mT
        prefix = 0 if x_BPC is None else x_BPC.shape[1]
        h_BNm = self.of_tokens(tokens if x_BPC is None else torch.cat([x_BPC, tokens], 1))
        h_BmHW = h_BNm[:, prefix:].mT.unflatten(2, x_BCHW.shape[2:])
        return h_BmHW, None if x_BPC is None else h_BNm[:, :prefix]

    def of_tokens(self, x_BNC: Tensor) -> Tensor:
        """What they give tokens in a row, prefix tokens among them: (B, N, m)."""
        qkv_3BkNd = F.linear(x_BNC, self.weight, self.bias).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = qkv_3BkNd.unbind()
        return self.attend(self.q_norm(queries), self.k_norm(keys), values).transpose(1, 2).flatten(2)

    def attend(self, q_BkNd: Tensor, k_BkNd: Tensor, v_BkNd: Tensor) -> Tensor:
        """What each head gives each token, (B, k, N, d)."""
        return F.scaled_dot_product_attention(q_BkNd, k_BkNd, v_BkNd)

    def macs(self, grid: tuple[int, int], prefix: int) -> int:
        """Cost of one map and its prefix tokens in MACs."""
        tokens = math.prod(grid) + prefix
        return tokens * (self.weight.shape[0] * (self.weight.shape[1] + 1) + 2 * tokens * self.size)

    def extra_repr(self) -> str:
        """Show how many."""
        return f"{self.heads}, of {self.size // self.heads} channels"
