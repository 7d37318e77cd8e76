"""Ridge and reduced-rank regression from sums that don't grow with the number of rows.

Shapes: M rows, F features, C targets, r rank: targets_MC ~ features_MF weight_CF^T + bias_C.

Source: reduced-rank regression is Izenman, Journal of Multivariate Analysis 5, 1975; with a ridge, Mukherjee and Zhu,
Statistical Analysis and Data Mining 4, 2011.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RIDGES", "Solution", "Sums", "fit", "solve"]

# Ridges that are tried, as shares of the features' mean variance.
RIDGES = (1e-8, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class Sums:
    """Sums over rows of features and targets, in float64.

    Args:
        features: F.
        targets: C.
        device: of the rows.
    """

    def __init__(self, features: int, targets: int, device: torch.device | str = "cpu") -> None:
        self.rows = 0
        self.f_F, self.t_C, self.ff_FF, self.ft_FC, self.tt = (
            torch.zeros(shape, dtype=torch.float64, device=device)
            for shape in ((features,), (targets,), (features, features), (features, targets), ())
        )

    def add(self, features_MF: Tensor, targets_MC: Tensor) -> None:
        """Add rows."""
        f_MF, t_MC = features_MF.double(), targets_MC.double()
        self.rows += len(f_MF)
        self.f_F += f_MF.sum(0)
        self.t_C += t_MC.sum(0)
        self.ff_FF.addmm_(f_MF.mT, f_MF)
        self.ft_FC.addmm_(f_MF.mT, t_MC)
        self.tt += t_MC.square().sum()

    def __iadd__(self, other: Sums) -> Sums:
        self.rows += other.rows
        for name in ("f_F", "t_C", "ff_FF", "ft_FC", "tt"):
            getattr(self, name).add_(getattr(other, name))
        return self

    @classmethod
    def of(cls, parts: Iterable[Sums]) -> Sums:
        """The sums over all rows of several."""
        first, *rest = parts
        total = cls(len(first.f_F), len(first.t_C), first.f_F.device)
        for part in (first, *rest):
            total += part
        return total

    def error(self, weight_CF: Tensor, bias_C: Tensor) -> float:
        """Sum of squared errors of a map on these rows."""
        mapped = (weight_CF @ self.ff_FF).mul(weight_CF).sum() - 2 * (weight_CF.mT * self.ft_FC).sum()
        offset = self.rows * bias_C.square().sum() + 2 * (bias_C @ (weight_CF @ self.f_F - self.t_C))
        return max(0.0, float(self.tt + mapped + offset))

    def total(self, centred: bool) -> float:
        """Sum of squares of the targets, about their mean where ``centred``."""
        return float(self.tt - (self.t_C.square().sum() / self.rows if centred else 0))


@dataclass(frozen=True)
class Solution:
    """A fitted map, float64.

    Attributes:
        weight: the map, (C, F).
        bias: its offset, (C,).
        ridge: as a share of the features' mean variance.
        error: sum of squared errors on the held-out rows.
    """

    weight: Tensor
    bias: Tensor
    ridge: float
    error: float


def solve(fitted: Sums, held_out: Sums, rank: int, ridges: Sequence[float] = RIDGES) -> Solution:
    """The map of some rank with the least squared error, its ridge chosen on held-out rows.

    Args:
        fitted: rows to fit.
        held_out: rows to choose the ridge on.
        rank: r, at most.
        ridges: what to choose from.
    """
    best: Solution | None = None
    for ridge in ridges:
        weight_CF, bias_C = fit(fitted, rank, ridge)
        error = held_out.error(weight_CF, bias_C)
        if best is None or error < best.error:
            best = Solution(weight_CF, bias_C, ridge, error)
    if best is None:
        raise ValueError("ridges must name at least one")
    return best


def fit(sums: Sums, rank: int, ridge: float) -> tuple[Tensor, Tensor]:
    """The map (C, F) of this rank, and its offset (C,), for one ridge."""
    mean_F, mean_C = sums.f_F / sums.rows, sums.t_C / sums.rows
    ff_FF = sums.ff_FF - sums.rows * torch.outer(mean_F, mean_F)
    ft_FC = sums.ft_FC - sums.rows * torch.outer(mean_F, mean_C)
    variance = ff_FF.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    ff_FF.diagonal().add_(ridge * variance)
    factor, info = torch.linalg.cholesky_ex(ff_FF)
    # Features that depend on each other leave nothing to factor but the ridge, which rounding can eat up.
    weight_FC = torch.cholesky_solve(ft_FC, factor) if int(info) == 0 else torch.linalg.pinv(ff_FF) @ ft_FC
    if rank < min(weight_FC.shape):
        # Of the fitted targets, the directions of largest variance, in the metric of the penalised problem.
        _, vectors_CC = torch.linalg.eigh(ft_FC.mT @ weight_FC)
        kept_Cr = vectors_CC[:, -rank:]
        weight_FC = weight_FC @ kept_Cr @ kept_Cr.mT
    return weight_FC.mT.contiguous(), mean_C - mean_F @ weight_FC
