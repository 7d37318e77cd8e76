"""Attention heads with fewer channels: logits and values of a lower rank.

Shapes: C channels, Z = C + 1 of a token and a constant, k heads of d channels, r that stay, H = k d features.

A head's logits are ``(W_k x')^T (W_q x + b_q)``: what the keys' bias adds is the same for all keys, and the softmax
takes it away. Of rank r the best approximation, by the squared error over pairs of tokens, is the truncated singular
value decomposition of that product between the roots of both moments. A head's values become those directions of what
is read out of it that have most of the variance which a map of the token leaves.

Source: pruning by singular values of a head's query-key and value-output products is Meng et al., CLOVER, ICML 2025,
arXiv 2411.17426. The weighing by what tokens there are, and by what a map beside the heads leaves, is our extension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers.kept_heads import KeptHeads

__all__ = ["thin_heads"]

# Share of the mean that counts as nothing.
_NOTHING = 1e-9


def thin_heads(kept: KeptHeads, channels: int, moments_ZZ: Tensor, left_HH: Tensor, out_CH: Tensor) -> KeptHeads:
    """Heads with so many channels each.

    Args:
        kept: the heads.
        channels: r, below d.
        moments_ZZ: second moments of tokens, with a constant 1 at the end.
        left_HH: covariance of what the heads give, as far as the map beside them doesn't explain it.
        out_CH: the layer that reads it.
    """
    made = kept.thin(channels)
    weight_3kdZ = torch.cat([kept.weight, kept.bias[:, None]], 1).to(moments_ZZ).unflatten(0, (3, kept.heads, -1))
    mean_Z = moments_ZZ[-1]
    covariance_ZZ = moments_ZZ - torch.outer(mean_Z, mean_Z)
    new_3krZ = weight_3kdZ.new_zeros(3, kept.heads, channels, weight_3kdZ.shape[3])
    d = weight_3kdZ.shape[2]
    for head, (queries_dZ, keys_dZ, values_dZ) in enumerate(weight_3kdZ.transpose(0, 1).unbind()):
        keys_dZ = keys_dZ.clone()
        keys_dZ[:, -1] = 0
        root_q, back_q = _roots(queries_dZ @ moments_ZZ @ queries_dZ.mT)
        root_k, back_k = _roots(keys_dZ @ covariance_ZZ @ keys_dZ.mT)
        u_dd, s_d, v_dd = torch.linalg.svd(root_k @ root_q)
        halves_r = s_d[:channels].sqrt()
        # Heads divide by the root of their number of channels, which was larger.
        shrink = (channels / d) ** 0.5
        new_3krZ[0, head] = shrink * (back_q @ v_dd[:channels].mT * halves_r).mT @ queries_dZ
        new_3krZ[1, head] = (back_k @ u_dd[:, :channels] * halves_r).mT @ keys_dZ
        rows = slice(head * d, (head + 1) * d)
        read_Cd = out_CH[:, rows].to(left_HH)
        root_dd, _ = _roots(left_HH[rows, rows])
        new_3krZ[2, head] = torch.linalg.svd(read_Cd @ root_dd, full_matrices=False)[0][:, :channels].mT @ (
            read_Cd @ values_dZ
        )
    weight = new_3krZ.flatten(0, 2).to(made.weight)
    with torch.no_grad():
        made.weight.copy_(weight[:, :-1])
        made.bias.copy_(weight[:, -1])
    return made


def _roots(moments_dd: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric root of a covariance, and its inverse where there is some variance."""
    values_d, vectors_dd = torch.linalg.eigh(moments_dd)
    nothing = _NOTHING * values_d.mean().clamp_min(1e-300)
    root_d = values_d.clamp_min(0).sqrt()
    back_d = torch.where(values_d > nothing, values_d.clamp_min(nothing).rsqrt(), 0)
    return vectors_dd * root_d @ vectors_dd.mT, vectors_dd * back_d @ vectors_dd.mT
