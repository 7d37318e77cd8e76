"""Which parts of a block a stand-in keeps: one after the other those that add most to what is read out.

Shapes: M tokens, C channels, H hidden features, Z = C + 1 of a token and a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..anatomy.hidden import Hidden, hidden_of
from ..layers.kept_channels import KeptChannels
from ..layers.kept_filters import KeptFilters
from ..layers.kept_heads import KeptHeads
from .greedy import greedy
from .narrowing import Narrowing
from .thin_heads import thin_heads

__all__ = ["KeptSums", "keep_best"]

# Share of the mean variance that is added to it.
_RIDGE = 1e-6
# Of whose pixels neighbours are put side by side at once.
_IMAGES = 8


class KeptSums:
    """Sums from which the worth of hidden units, heads or channels is told, over batches.

    Args:
        module: what they are in.
        block: that it is a half of.

    Attributes:
        hidden: what lies in its middle.
    """

    def __init__(self, module: nn.Module, block: nn.Module | None = None) -> None:
        hidden = hidden_of(module, block)
        if hidden is None:
            raise ValueError(f"{type(module).__name__} has no middle that is known")
        self.hidden: Hidden = hidden
        self._zz = self._zh = self._hh = torch.zeros(())
        kept = hidden.kept
        depends = isinstance(kept, KeptChannels) and (kept.is_dense or kept.gate is not None)
        self._narrowing = Narrowing(cast("KeptChannels", kept), hidden.out) if depends else None

    @torch.no_grad()
    def add(self, maps: tuple[Tensor, ...]) -> None:
        """Add a batch as a stand-in gets it: (B, C, H, W) and, where there are some, prefix tokens (B, P, C)."""
        if isinstance(self.hidden.kept, KeptFilters) or self._narrowing is not None:
            for part_BCHW in maps[0].split(_IMAGES):
                self._add((part_BCHW,))
        else:
            self._add(maps)

    def _add(self, maps: tuple[Tensor, ...]) -> None:
        if self._narrowing is not None:
            self._narrowing.add(maps[0])
        h = self.hidden.kept(*maps)
        if isinstance(self.hidden.kept, KeptFilters):
            h = (self.hidden.kept.neighbours(h[0]), None)
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
        left_HH = self._left()
        return greedy(left_HH, self.hidden.out.to(left_HH), self.hidden.parts, count)

    def some(self, which: Tensor) -> nn.Module:
        """The middle with the parts of these numbers."""
        return self.hidden.kept.some(which) if self._narrowing is None else self._narrowing.some(which)

    def thin(self, which: Tensor, channels: int) -> KeptHeads:
        """The heads of these numbers with so many channels each."""
        kept = cast("KeptHeads", self.hidden.kept)
        d = kept.thinnable
        features = (d * which[:, None] + torch.arange(d, device=which.device)).flatten()
        left_HH, out_CH = self._left()[features][:, features], self.hidden.out[:, features]
        return thin_heads(kept.some(which), channels, self._zz / self._zz[-1, -1], left_HH, out_CH)

    def _left(self) -> Tensor:
        """Covariance of the features that tokens don't explain."""
        rows = self._zz[-1, -1]
        zz_ZZ, zh_ZH = self._zz / rows, self._zh / rows
        zz_ZZ.diagonal()[:-1].add_(_RIDGE * zz_ZZ.diagonal()[:-1].mean().clamp_min(1e-300))
        return self._hh / rows - zh_ZH.mT @ torch.linalg.solve(zz_ZZ, zh_ZH)


def keep_best(stand_ins: Sequence[Any], sums: KeptSums) -> None:
    """Let stand-ins of one module keep the most worthwhile parts, each as many as it has."""
    hidden = sums.hidden
    all_heads = isinstance(hidden.kept, KeptHeads)
    counts = [one.kept.heads if all_heads else one.kept.size * hidden.parts // hidden.kept.size for one in stand_ins]
    # Of fewer they are the first.
    best = sums.best(max(counts)).to(hidden.out.device)
    for one, count in zip(stand_ins, counts, strict=True):
        thinned = all_heads and one.kept.size * hidden.parts < hidden.kept.size * count
        made = sums.thin(best[:count], one.kept.size // count) if thinned else sums.some(best[:count])
        one.kept.load_state_dict(made.state_dict())


def _rows(parts: tuple[Tensor | None, ...]) -> Tensor:
    """All tokens of a map and of its prefix tokens, (M, features)."""
    of_grid, *prefix = parts
    tokens = [of_grid.flatten(2).mT, *prefix]  # type: ignore[union-attr]
    return torch.cat([part.flatten(0, 1) for part in tokens if part is not None])
