"""The places of a base that the search may change: runs of blocks up to a length, and halves of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from cp_vision.anatomy.block import Block
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.anatomy.places import HALVES, Place, find_places
from cp_vision.shared.errors import UserError

__all__ = ["MAX_RUN", "Spot", "find_spots"]

# Blocks of a run that one stand-in replaces, at most, where nobody says otherwise.
MAX_RUN = 3


@dataclass(frozen=True)
class Spot:
    """A place and where it is among the base's blocks.

    Attributes:
        place: the place.
        first: number of its first block.
        stop: number of the block after its last.
        half: name of the half that it is; empty for whole blocks.
    """

    place: Place
    first: int
    stop: int
    half: str = ""


def find_spots(model: nn.Module, max_run: int) -> list[Spot]:
    """All places of a base, by their first block.

    Args:
        model: the base; left untouched.
        max_run: blocks of a run at most.

    Raises:
        UserError: there are none.
    """
    blocks = list_blocks(model)
    groups: dict[tuple[int, int], list[tuple[str, int, int, str]]] = {}
    for length in range(1, max_run + 1):
        for first in range(len(blocks) - length + 1):
            run = blocks[first : first + length]
            if _is_run(run):
                name = run[0].name if length == 1 else f"{run[0].name}:{run[-1].name}"
                groups.setdefault((length, first % (2 * length)), []).append((name, first, first + length, ""))
    for number, block in enumerate(blocks):
        for half in (name for name, _ in block.module.named_children() if name in HALVES):
            groups.setdefault((0, 0), []).append((f"{block.name}.{half}", number, number + 1, half))
    spots = [spot for group in groups.values() for spot in _spots(model, group)]
    if not spots:
        raise UserError(f"{type(model).__name__} has no block that could be left out or replaced")
    return sorted(spots, key=lambda spot: (spot.first, spot.half, spot.stop))


def _is_run(run: Sequence[Block]) -> bool:
    rows = {block.name.rpartition(".")[0] for block in run}
    same = all(a.channels == b.channels and a.layout == b.layout for a, b in pairwise(run))
    return all(block.droppable for block in run) and len(rows) == 1 and same


def _spots(model: nn.Module, named: Sequence[tuple[str, int, int, str]]) -> list[Spot]:
    """Those that are places; names that share no block."""
    try:
        places = find_places(model, [name for name, *_ in named])
    except UserError:
        if len(named) == 1:
            return []
        middle = len(named) // 2
        return [*_spots(model, named[:middle]), *_spots(model, named[middle:])]
    return [Spot(place, first, stop, half) for place, (_, first, stop, half) in zip(places, named, strict=True)]
