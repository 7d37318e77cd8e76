"""Channels in the middle of a block of which some stay: what these make up for those that go.

Shapes: B images, n channels before the filters, m behind them, K x K taps, N = n K K values that the filters read.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ..layers.kept_channels import KeptChannels
from ..layers.kept_gate import KeptGate
from .greedy import greedy
from .making_up import Moments, make_up

__all__ = ["Narrowing"]


class Narrowing:
    """Sums of what dense filters read and of what squeeze-and-excitation does, over batches.

    Args:
        kept: all of the middle.
        out_CH: the layer that reads it.
    """

    def __init__(self, kept: KeptChannels, out_CH: Tensor) -> None:
        self.kept, self.out_CH = kept, out_CH
        self._read, self._squeezed = Moments(), Moments()

    def add(self, x_BCHW: Tensor) -> None:
        """Add a batch as the block gets it."""
        kept = self.kept
        if kept.is_dense:
            side, dilation = kept.filters.shape[-1], kept.dilation
            patches = F.unfold(kept.before(x_BCHW), side, dilation, dilation * (side // 2))
            self._read.add(patches.mT.flatten(0, 1))
        if kept.gate is not None:
            self._squeezed.add(kept.ungated(x_BCHW).mean((2, 3)))

    @torch.no_grad()
    def some(self, which: Tensor) -> KeptChannels:
        """The middle with the parts of these numbers.

        What filters or squeeze-and-excitation made of the other channels is predicted from those that stay.
        """
        made = self._filtered(which) if self.kept.is_dense else self.kept.some(which)
        if self.kept.gate is not None:
            gate = cast("KeptGate", made.gate)
            added, offset = make_up(self._squeezed, self.kept.gate.reduce, self.kept.behind(which))
            gate.reduce.add_(added)
            gate.reduce_bias.add_(offset)
        return made

    def _filtered(self, behind_m: Tensor) -> KeptChannels:
        """Dense filters from as many channels as stay behind them.

        Next of those before comes the one that, beside those that were taken, explains most of what the filters make
        of all.
        """
        filters_mN, cov_NN = self.kept.filters[behind_m].flatten(1), self._read.covariance
        counts_m = self.out_CH[:, behind_m].norm(dim=0)
        weighed_mN = (counts_m[:, None] * filters_mN).to(cov_NN)
        before_n = greedy(cov_NN, weighed_mN, len(self.kept.weight), len(behind_m)).to(filters_mN.device)
        taps = self.kept.filters[0, 0].numel()
        here = (taps * before_n[:, None] + torch.arange(taps, device=before_n.device)).flatten()
        made = self.kept.narrowed(behind_m, before_n)
        added, offset = make_up(self._read, filters_mN, here)
        made.filters.add_(added.unflatten(1, made.filters.shape[1:]))
        made.filters_bias.add_(offset)
        return made
