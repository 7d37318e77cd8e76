"""Dense filters of which some inputs and outputs stay: which inputs, and what these make up for those that go.

Shapes: M pixels, n channels before the filters, m behind them, K x K taps, N = n K K values that the filters read.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..layers.kept_channels import KeptChannels
from .greedy import greedy

__all__ = ["Narrowing"]

# Share of the mean variance. Of fewer pixels than values so much leaves the filters nearer to what they were, and of
# many it hardly matters (3 x 3 pixels each of 16 to 512 images, 1e-4 to 1e3).
_RIDGE = 0.1


class Narrowing:
    """Sums of what dense filters read, over batches.

    Args:
        kept: the filters, all of them.
    """

    def __init__(self, kept: KeptChannels) -> None:
        self.kept, self._rows = kept, 0
        self._u = self._uu = torch.zeros(())

    def add(self, x_BCHW: Tensor) -> None:
        """Add a batch as the block gets it."""
        side, dilation = self.kept.filters.shape[-1], self.kept.dilation
        h_BnHW = self.kept.before(x_BCHW)
        u_MN = F.unfold(h_BnHW, side, dilation, dilation * (side // 2)).mT.flatten(0, 1).double()
        self._rows += len(u_MN)
        self._u, self._uu = self._u.to(u_MN) + u_MN.sum(0), self._uu.to(u_MN) + u_MN.mT @ u_MN

    def narrowed(self, behind_m: Tensor, weight_m: Tensor) -> KeptChannels:
        """Filters behind which some channels stay, from as many before them.

        Next of those before comes the one that, beside those that were taken, explains most of what the filters make
        of all. What they make of the others is predicted from those that stay, by least squares, in filters and biases.

        Args:
            behind_m: numbers of the channels that stay behind the filters.
            weight_m: how much a channel behind them counts.
        """
        kept = self.kept
        taps = kept.filters[0, 0].numel()
        mean_N = self._u / self._rows
        cov_NN = self._uu / self._rows - torch.outer(mean_N, mean_N)
        filters_mN = kept.filters[behind_m].flatten(1).to(cov_NN)
        count = len(behind_m)
        before_n = greedy(cov_NN, weight_m[:, None].to(cov_NN) * filters_mN, len(kept.weight), count).to(mean_N.device)
        stays = torch.zeros(len(kept.weight), dtype=torch.bool, device=mean_N.device)
        stays[before_n] = True
        goes = ~stays.repeat_interleave(taps)
        here = (taps * before_n[:, None] + torch.arange(taps, device=mean_N.device)).flatten()
        cov_here = cov_NN[here][:, here]
        cov_here.diagonal().add_(_RIDGE * cov_here.diagonal().mean().clamp_min(1e-300))
        lost_Nm = cov_NN[here][:, goes] @ filters_mN[:, goes].mT
        made_up_mN = torch.linalg.solve(cov_here, lost_Nm).mT
        offset_m = filters_mN[:, goes] @ mean_N[goes] - made_up_mN @ mean_N[here]
        made = kept.narrowed(behind_m, before_n)
        with torch.no_grad():
            made.filters.add_(made_up_mN.unflatten(1, made.filters.shape[1:]))
            made.filters_bias.add_(offset_m)
        return made
