"""What may take each place of a base, and what that saves, before anything is fitted."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import nn

from cp_vision import Snapshot, UserError
from cp_vision.anatomy.replacement import Replacement
from cp_vision.anatomy.token_grid import TokenGrid
from cp_vision.surgery.replace_blocks import make_replacement
from cp_vision.surgery.stand_ins import stand_in_options

from ..types import Measure
from .kinds import DROP, Kind
from .option import Option
from .places import Spot

__all__ = ["Offer", "offered", "offers"]


class Offer(NamedTuple):
    """What may take a place.

    Attributes:
        spot: the place.
        option: what that is and saves, without a score.
        stand_in: new, not in the model; None where the place is left out.
    """

    spot: Spot
    option: Option
    stand_in: Replacement | None


def offered(model: nn.Module, spots: Sequence[Spot], kinds: Sequence[Kind]) -> list[Option]:
    """All options of a base, without scores; the model is left as it was."""
    with Snapshot(model):
        return [offer.option for spot in spots for offer in offers(model, [spot], kinds)]


def offers(model: nn.Module, spots: Iterable[Spot], kinds: Sequence[Kind]) -> Iterator[Offer]:
    """A new stand-in for each place and kind that is offered there and costs less, after leaving the place out.

    Args:
        model: the base, which may get hooks that tell a grid.
        spots: the places.
        kinds: what may take them.
    """
    tokens = functools.cache(lambda: TokenGrid(model))
    for spot in spots:
        place = spot.place
        own = sum(_size(model.get_submodule(path)) for path in place.modules)
        where = (spot.half, spot.first, spot.stop, place.modules)
        if not spot.half:
            saved: dict[Measure, int] = {"macs": place.macs, "params": own}
            yield Offer(spot, Option(place.name, DROP, True, *where, options={}, saved=saved), None)
        for kind in kinds:
            if (options := kind.options(place)) is None:
                continue
            try:
                made = make_replacement(model, place, stand_in_options(options), tokens)
            except UserError:
                # It costs as much as what it replaces.
                continue
            macs = place.macs - place.count * made.stand_in.macs(place.grid)
            saved = {"macs": macs, "params": own - _size(made.stand_in)}
            option = Option(place.name, kind.name, kind.plain, *where, options=made.options, saved=saved)
            yield Offer(spot, option, made.eval())


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
