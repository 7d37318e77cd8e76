"""Fitting stand-ins to places that may overlap, each as if it were the only one, in one pass of the teacher.

Stand-ins of one place and of runs that begin there mostly read the same features: these are computed, and their
products summed, once. Shapes: B images, n tokens of a map, F features, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .batches import Batches
from .block_sums import BlockSums
from .choice import Choice
from .fit_round import FitRound
from .fitted_block import FittedBlock
from .supports import set_supports

__all__ = ["bytes_of_sums", "fit_places"]


@torch.no_grad()
def fit_places(teacher: nn.Module, fitted: Sequence[FittedBlock], batches: Batches) -> int:
    """Fit all of them on what the teacher has in their places, and set their results.

    Pools of stand-ins that begin at one place start from the supports that are best for the first of them.

    Args:
        teacher: in eval mode, with nothing replaced.
        fitted: stand-ins, none of them in the teacher.
        batches: the images.

    Returns:
        How many images there were.

    Raises:
        UserError: too few images.
    """
    alike = _alike(fitted)
    leading = [one for one in fitted if one.keeps or any(one is first for first, *_ in alike)]
    families: list[_Family] = []
    everything = FitRound(fitted, teacher, teacher, batches)
    for images, maps in everything.passes_after(Choice(leading, teacher)):
        given = {one.path: x for one, (x, _) in zip(fitted, maps, strict=True)}
        wanted = {one.wants: y for one, (_, y) in zip(fitted, maps, strict=True)}
        if not families:
            _follow(alike, given)
            families = _families(fitted, given)
        for family in families:
            family.add(given[family.path], wanted, images)
    count = families[0].sums.images
    while families:
        # What it takes to solve is as large as the sums.
        families.pop().set()
    return count


def bytes_of_sums(fitted: Sequence[FittedBlock]) -> int:
    """Bytes that the sums of stand-ins which begin at one place take, about."""
    ends = len({one.wants for one in fitted})
    total = 0
    for read_outs in zip(*(one.stand_in.read_outs() for one in fitted), strict=False):
        features, channels = max(part.down.shape[1] for part in read_outs), len(read_outs[0].bias)
        total += 2 * 8 * features * (features + ends * channels)
    return total


def _alike(fitted: Sequence[FittedBlock]) -> list[list[FittedBlock]]:
    """Stand-ins that begin at one place and have pools alike."""
    alike: dict[tuple[str, type, int], list[FittedBlock]] = {}
    for one in fitted:
        if (pools := len(getattr(one.stand_in, "pools", ()))) and not one.keeps:
            alike.setdefault((one.path, type(one.stand_in), pools), []).append(one)
    return list(alike.values())


def _follow(alike: Sequence[Sequence[FittedBlock]], given: dict[str, Tensor]) -> None:
    """Start from the supports that were chosen for the first of those alike."""
    for first, *others in alike:
        for other in others if first.supports else []:
            other.supports = first.supports
            set_supports(other.stand_in, first.supports, other.grid(given[other.path]))


class _Family:
    """Stand-ins that read the leading features of the first of them.

    Attributes:
        path: where they begin.
        sums: of the first one's features, and of the targets of all, end by end.
    """

    def __init__(self, first: FittedBlock) -> None:
        self.path, self.first, self.members = first.path, first, [first]
        self.ends: list[tuple[str, bool]] = []
        self.sums = BlockSums()

    def takes(self, other: FittedBlock, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
        """Whether another one reads leading features of these, by those of some images."""
        return (
            other.path == self.path
            and type(other.stand_in) is type(self.first.stand_in)
            and len(own) == len(theirs)
            and all(torch.equal(a[..., : b.shape[-1]], b) for a, b in zip(own, theirs, strict=True))
        )

    def add(self, x: Tensor, outputs: dict[tuple[str, bool], Tensor], images: int) -> None:
        """Add what a batch has there."""
        self.ends = self.ends or list(dict.fromkeys(one.wants for one in self.members))
        for part, count in self.first.slices(x, images):
            targets = zip(*(self.first.targets(x[part], outputs[end][part]) for end in self.ends), strict=True)
            features = self.first.features(x[part])
            self.sums.add([(f, torch.cat(ts, 2)) for f, ts in zip(features, targets, strict=True)], count)

    def set(self) -> None:
        """Fit all of them."""
        channels = len(self.first.stand_in.read_outs()[0].bias)
        for i, end in enumerate(self.ends):
            sums = self.sums.of_targets(slice(i * channels, (i + 1) * channels))
            for one in (member for member in self.members if member.wants == end):
                one.set(sums.of_leading([part.down.shape[1] for part in one.stand_in.read_outs()]))


def _families(fitted: Sequence[FittedBlock], given: dict[str, Tensor]) -> list[_Family]:
    """Who shares features with whom, told from one batch."""
    families: list[tuple[_Family, list[Tensor]]] = []
    # Those with most features first: others may read a part of these.
    for one in sorted(fitted, key=lambda one: -sum(part.down.shape[1] for part in one.stand_in.read_outs())):
        theirs = one.features(given[one.path][:2])
        family = next((family for family, own in families if family.takes(one, own, theirs)), None)
        if family is None:
            families.append((_Family(one), theirs))
        else:
            family.members.append(one)
    return [family for family, _ in families]
