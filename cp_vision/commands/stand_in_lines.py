"""What a model's stand-ins replace, in a line for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..anatomy.places import Place, find_places
from ..anatomy.replacement import Replacement
from ..cost.macs import format_macs

__all__ = ["stand_in_lines"]


def stand_in_lines(plain: nn.Module, stand_ins: Sequence[Replacement]) -> list[str]:
    """Say of each stand-in what it replaces, what it is and what both cost, in MACs for one image.

    Args:
        plain: the model without its stand-ins and pools, which may be on the meta device.
        stand_ins: from input to output.
    """
    places = find_places(plain, [one.name for one in stand_ins])
    return [_line(place, one.stand_in) for place, one in zip(places, stand_ins, strict=True)]


def _line(place: Place, stand_in: Any) -> str:
    macs = place.count * stand_in.macs(place.grid)
    return (
        f"replaced: {place.name} by {_describe(stand_in)}; {format_macs(macs)} MACs in place of "
        f"{format_macs(place.macs)}"
    )


def _describe(stand_in: Any) -> str:
    """Rank and number of supports, or the name of a kind of somebody's own that has none."""
    words = [f"rank {stand_in.rank}" if hasattr(stand_in, "rank") else type(stand_in).__name__]
    if hasattr(stand_in, "pools"):
        count = len(stand_in.pools)
        words.append("no pool" if count == 0 else "1 support" if count == 1 else f"{count} supports")
    return ", ".join(words)
