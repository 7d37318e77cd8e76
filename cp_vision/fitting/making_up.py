"""What values that stay can say of what a linear layer made of those that go.

Shapes: N values, m outputs, n of the values that stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Moments", "make_up"]

# Share of the mean variance. Of fewer rows than values so much leaves weights nearer to what they were, and of many it
# hardly matters (filters over 3 x 3 pixels, 16 to 512 images of 4 x 4 to 14 x 14; from 1e-4 to 1e3).
_RIDGE = 0.1


class Moments:
    """Mean and covariance of values, over batches."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum = self._products = torch.zeros(())

    def add(self, rows_MN: Tensor) -> None:
        """Add rows."""
        rows_MN = rows_MN.double()
        self._rows += len(rows_MN)
        self._sum, self._products = self._sum.to(rows_MN) + rows_MN.sum(0), self._products.to(rows_MN)
        self._products = self._products + rows_MN.mT @ rows_MN

    @property
    def mean(self) -> Tensor:
        """(N,)."""
        return self._sum / self._rows

    @property
    def covariance(self) -> Tensor:
        """(N, N)."""
        return self._products / self._rows - torch.outer(self.mean, self.mean)


def make_up(moments: Moments, weight_mN: Tensor, here_n: Tensor) -> tuple[Tensor, Tensor]:
    """What to add to the weights of the values that stay, and to the bias.

    Args:
        moments: of all values.
        weight_mN: of a linear layer.
        here_n: numbers of the values that stay.

    Returns:
        (m, n) and (m,): by least squares with a ridge, what the others gave.
    """
    mean_N, cov_NN = moments.mean, moments.covariance
    goes = torch.ones(len(mean_N), dtype=torch.bool, device=mean_N.device)
    goes[here_n] = False
    lost_mN = weight_mN[:, goes].to(cov_NN)
    cov_nn = cov_NN[here_n][:, here_n]
    cov_nn.diagonal().add_(_RIDGE * cov_nn.diagonal().mean().clamp_min(1e-300))
    made_up_mn = torch.linalg.solve(cov_nn, cov_NN[here_n][:, goes] @ lost_mN.mT).mT
    return made_up_mn, lost_mN @ mean_N[goes] - made_up_mn @ mean_N[here_n]
