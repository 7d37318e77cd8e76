"""Which parts of a block a stand-in keeps: one after the other those that add most to what is read out.

Shapes: M tokens, C channels, H hidden features, Z = C + 1 of a token and a constant, k parts of d features each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy.hidden import Hidden, hidden_of

__all__ = ["KeptSums", "keep_best"]

# Shares of the mean variance that are added to, or count as, nothing.
_RIDGE, _NOTHING = 1e-6, 1e-9


class KeptSums:
    """Sums from which the worth of hidden units, heads or channels is told, over batches.

    Args:
        module: what they are in.

    Attributes:
        hidden: what lies in its middle.
    """

    def __init__(self, module: nn.Module) -> None:
        hidden = hidden_of(module)
        if hidden is None:
            raise ValueError(f"{type(module).__name__} has no middle that is known")
        self.hidden: Hidden = hidden
        self._zz = self._zh = self._hh = torch.zeros(())

    @torch.no_grad()
    def add(self, maps: tuple[Tensor, ...]) -> None:
        """Add a batch as a stand-in gets it: (B, C, H, W) and, where there are some, prefix tokens (B, P, C)."""
        h = self.hidden.kept(*maps)
        z_MZ, h_MH = (_rows(part).double() for part in (maps, h))
        z_MZ = torch.cat([z_MZ, z_MZ.new_ones(len(z_MZ), 1)], 1)
        self._zz = self._zz.to(z_MZ) + z_MZ.mT @ z_MZ
        self._zh = self._zh.to(z_MZ) + z_MZ.mT @ h_MH
        self._hh = self._hh.to(z_MZ) + h_MH.mT @ h_MH

    def best(self, count: int) -> Tensor:
        """Numbers of the parts to keep, (count,), the most worthwhile first.

        The next one is always that which, beside a linear map of the token and those before, leaves least of the
        output's variance.
        """
        rows = self._zz[-1, -1]
        zz_ZZ, zh_ZH = self._zz / rows, self._zh / rows
        zz_ZZ.diagonal()[:-1].add_(_RIDGE * zz_ZZ.diagonal()[:-1].mean().clamp_min(1e-300))
        # What tokens don't explain of them.
        left_HH = self._hh / rows - zh_ZH.mT @ torch.linalg.solve(zz_ZZ, zh_ZH)
        return _greedy(left_HH, self.hidden.out.to(left_HH), self.hidden.parts, count)


def keep_best(stand_ins: Sequence[Any], sums: KeptSums) -> None:
    """Let stand-ins of one module keep the most worthwhile parts, each as many as it has."""
    hidden = sums.hidden
    counts = [one.kept.size * hidden.parts // hidden.kept.size for one in stand_ins]
    # Of fewer they are the first.
    best = sums.best(max(counts)).to(hidden.out.device)
    for one, count in zip(stand_ins, counts, strict=True):
        one.kept.load_state_dict(hidden.kept.some(best[:count]).state_dict())


def _greedy(left_HH: Tensor, out_CH: Tensor, parts: int, count: int) -> Tensor:
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


def _rows(parts: tuple[Tensor | None, ...]) -> Tensor:
    """All tokens of a map and of its prefix tokens, (M, features)."""
    of_grid, *prefix = parts
    tokens = [of_grid.flatten(2).mT, *prefix]  # type: ignore[union-attr]
    return torch.cat([part.flatten(0, 1) for part in tokens if part is not None])
