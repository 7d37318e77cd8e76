"""Parts of features, one after the other those that explain most of what a linear layer makes of all.

Shapes: C outputs, H features, k parts of d features each.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["greedy"]

# Share of the mean variance that counts as nothing.
_NOTHING = 1e-9


def greedy(left_HH: Tensor, out_CH: Tensor, parts: int, count: int) -> Tensor:
    """Parts in the order in which they take most of the variance that is left behind the linear layer.

    Source: greedy selection for reduced least squares, by partial Cholesky factors of the covariance.
    """
    d = len(left_HH) // parts
    nothing = _NOTHING * left_HH.diagonal().mean().clamp_min(1e-300)
    # The covariance of what is read out with the features, given those that are kept.
    of_out_CkD = (out_CH @ left_HH).unflatten(1, (parts, d))
    blocks_kDD = torch.stack([left_HH[i * d : (i + 1) * d, i * d : (i + 1) * d] for i in range(parts)])
    factors_HT = left_HH.new_zeros(len(left_HH), count * d)
    is_left = torch.ones(parts, dtype=torch.bool, device=left_HH.device)
    chosen: list[int] = []
    for number in range(count):
        done = slice(number * d)
        roots_kDD = _inverse_roots(blocks_kDD, float(nothing))
        gains_k = torch.einsum("ckd,kde->cke", of_out_CkD, roots_kDD).square().sum((0, 2))
        best = int(gains_k.masked_fill(~is_left, -1).argmax())
        chosen.append(best)
        is_left[best] = False
        rows = slice(best * d, (best + 1) * d)
        column_HD = left_HH[:, rows] - factors_HT[:, done] @ factors_HT[rows, done].mT
        factors_HT[:, number * d : (number + 1) * d] = factor_HD = column_HD @ roots_kDD[best]
        factor_kDD = factor_HD.unflatten(0, (parts, d))
        blocks_kDD = blocks_kDD - factor_kDD @ factor_kDD.mT
        of_out_CkD = of_out_CkD - torch.einsum("cd,ked->cke", of_out_CkD[:, best] @ roots_kDD[best], factor_kDD)
    return torch.tensor(chosen)


def _inverse_roots(blocks_kDD: Tensor, nothing: float) -> Tensor:
    """Matrices whose product with their transpose inverts each block; directions that have no variance are nothing."""
    if blocks_kDD.shape[1] == 1:
        return torch.where(blocks_kDD > nothing, blocks_kDD.clamp_min(nothing).rsqrt(), 0)
    values_kD, vectors_kDD = torch.linalg.eigh(blocks_kDD)
    return vectors_kDD * torch.where(values_kD > nothing, values_kD.clamp_min(nothing).rsqrt(), 0)[:, None]
