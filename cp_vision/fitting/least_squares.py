"""Ridge and reduced-rank regression from sums that don't grow with the number of rows.

Shapes: M rows, F features, C targets, r rank: targets_MC ~ features_MF weight_CF^T + bias_C.

Source: reduced-rank regression is Izenman, Journal of Multivariate Analysis 5, 1975; with a ridge, Mukherjee and Zhu,
Statistical Analysis and Data Mining 4, 2011.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RIDGES", "LowRank", "Regression", "Sums", "fit", "solve"]

# Ridges that are tried, as shares of the features' mean variance.
RIDGES = (1e-8, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


_NAMES = ("f_F", "t_C", "ff_FF", "ft_FC", "tt_C")


class Sums:
    """Sums over rows of features and targets.

    Args:
        features: F.
        targets: C.
        device: of the rows.
        dtype: of the sums and of all that is computed from them.
    """

    def __init__(
        self, features: int, targets: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
    ) -> None:
        self.rows = 0
        self.f_F, self.t_C, self.ff_FF, self.ft_FC, self.tt_C = (
            torch.zeros(shape, dtype=dtype, device=device)
            for shape in ((features,), (targets,), (features, features), (features, targets), (targets,))
        )

    def add(self, features_MF: Tensor, targets_MC: Tensor) -> None:
        """Add rows."""
        f_MF, t_MC = features_MF.to(self.tt_C), targets_MC.to(self.tt_C)
        self.rows += len(f_MF)
        self.f_F += f_MF.sum(0)
        self.t_C += t_MC.sum(0)
        # Of the symmetric product ten of sixteen parts.
        size = -(-f_MF.shape[1] // 4)
        for first in range(0, f_MF.shape[1], size):
            rows = slice(first, first + size)
            self.ff_FF[rows, first:].addmm_(f_MF[:, rows].mT, f_MF[:, first:])
            self.ff_FF[first + size :, rows] = self.ff_FF[rows, first + size :].mT
        self.ft_FC.addmm_(f_MF.mT, t_MC)
        self.tt_C += t_MC.square().sum(0)

    def __iadd__(self, other: Sums) -> Sums:
        self.rows += other.rows
        for name in _NAMES:
            getattr(self, name).add_(getattr(other, name))
        return self

    @classmethod
    def of(cls, parts: Iterable[Sums]) -> Sums:
        """The sums over all rows of several."""
        first, *rest = parts
        if not rest:
            return first
        total = cls(len(first.f_F), len(first.t_C), first.tt_C.device, first.tt_C.dtype)
        for part in (first, *rest):
            total += part
        return total

    def narrow(self, features: slice | Tensor, targets: slice) -> Sums:
        """The sums of some of the features and targets; a view where slices tell which."""
        part = copy.copy(self)
        part.f_F, part.ff_FF = self.f_F[features], self.ff_FF[features][:, features]
        part.t_C, part.ft_FC, part.tt_C = self.t_C[targets], self.ft_FC[features][:, targets], self.tt_C[targets]
        return part

    @property
    def nbytes(self) -> int:
        """Bytes that the sums take."""
        return sum(getattr(self, name).nbytes for name in _NAMES)

    def error(self, solution: LowRank) -> float:
        """Sum of squared errors of a map on these rows."""
        up_Cr, down_rF, bias_C = solution.up, solution.down, solution.bias
        # up has orthonormal columns.
        mapped = (down_rF @ self.ff_FF).mul(down_rF).sum() - 2 * ((self.ft_FC @ up_Cr).mT * down_rF).sum()
        offset = self.rows * bias_C.square().sum() + 2 * (bias_C @ (up_Cr @ (down_rF @ self.f_F) - self.t_C))
        return max(0.0, float(self.tt_C.sum() + mapped + offset))

    def total(self, centred: bool) -> float:
        """Sum of squares of the targets, about their mean where ``centred``."""
        return float(self.tt_C.sum() - (self.t_C.square().sum() / self.rows if centred else 0))


@dataclass(frozen=True)
class LowRank:
    """A map of features to targets: ``up down features + bias``.

    Attributes:
        up: (C, r), orthonormal columns.
        down: (r, F).
        bias: (C,).
        ridge: that it was fitted with, as a share of the features' mean variance.
    """

    up: Tensor
    down: Tensor
    bias: Tensor
    ridge: float


def solve(fitted: Regression, held_out: Sums, rank: int, ridges: Sequence[float] = RIDGES) -> tuple[LowRank, float]:
    """The map of some rank with the least squared error, its ridge chosen on held-out rows.

    The error is taken to have one minimum over ridges, which is walked to from the middle one.

    Args:
        fitted: rows to fit.
        held_out: rows to choose the ridge on.
        rank: r, at most.
        ridges: what to choose from, rising.

    Returns:
        The map, and its sum of squared errors on the held-out rows.
    """
    tried: dict[int, tuple[float, LowRank]] = {}

    def error(index: int) -> float:
        if not 0 <= index < len(ridges):
            return float("inf")
        if index not in tried:
            found = fitted.fit(rank, ridges[index])
            tried[index] = (held_out.error(found), found)
        return tried[index][0]

    best = len(ridges) // 2
    for step in (1, -1):
        while error(best + step) < error(best):
            best += step
    return tried[best][1], tried[best][0]


def fit(sums: Sums, rank: int, ridge: float) -> LowRank:
    """The map of some rank with the least squared error for one ridge, a share of the features' mean variance."""
    return Regression(sums).fit(rank, ridge)


class Regression:
    """Maps of all ranks and ridges from the same sums; what several of them need is computed once.

    Args:
        sums: of the rows to fit.
    """

    def __init__(self, sums: Sums) -> None:
        self.mean_F, self.mean_C = sums.f_F / sums.rows, sums.t_C / sums.rows
        self.ff_FF = sums.ff_FF - sums.rows * torch.outer(self.mean_F, self.mean_F)
        self.ft_FC = sums.ft_FC - sums.rows * torch.outer(self.mean_F, self.mean_C)
        self._weights: dict[float, Tensor] = {}
        self._directions: dict[float, Tensor] = {}

    def fit(self, rank: int, ridge: float) -> LowRank:
        """The map of some rank with the least squared error for one ridge, a share of the features' mean variance."""
        weight_FC = self._weight(ridge)
        if rank < len(self.mean_C):
            if ridge not in self._directions:
                # Of the fitted targets, the directions of largest variance, in the metric of the penalised problem.
                self._directions[ridge] = torch.linalg.eigh(self.ft_FC.mT @ weight_FC)[1]
            up_Cr = self._directions[ridge][:, -rank:]
            down_rF = up_Cr.mT @ weight_FC.mT
        else:
            up_Cr = torch.eye(len(self.mean_C), dtype=weight_FC.dtype, device=weight_FC.device)
            down_rF = weight_FC.mT
        return LowRank(up_Cr, down_rF, self.mean_C - up_Cr @ (down_rF @ self.mean_F), ridge)

    def _weight(self, ridge: float) -> Tensor:
        if ridge in self._weights:
            return self._weights[ridge]
        penalised_FF = self.ff_FF.clone()
        variance = penalised_FF.diagonal().mean().clamp_min(torch.finfo(penalised_FF.dtype).tiny)
        penalised_FF.diagonal().add_(ridge * variance)
        factor, info = torch.linalg.cholesky_ex(penalised_FF)
        if int(info) == 0:
            weight_FC = torch.cholesky_solve(self.ft_FC, factor)
        else:
            # Of features that depend on each other rounding can leave less than the ridge.
            weight_FC = torch.linalg.pinv(penalised_FF, hermitian=True) @ self.ft_FC
        self._weights[ridge] = weight_FC
        return weight_FC
