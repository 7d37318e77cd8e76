"""What may take a place: kinds of options by name; others can be added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cp_vision.anatomy.places import Place
from cp_vision.shared.errors import UserError, closest, listed

__all__ = ["DEFAULT_KINDS", "DROP", "Kind", "kinds_of", "register_option"]

# What leaves blocks out, and needs no stand-in.
DROP = "drop"


@dataclass(frozen=True)
class Kind:
    """A kind of option.

    Attributes:
        name: its name.
        options: for a place, those of :func:`cp_vision.replace_blocks`; None where it isn't offered there.
        plain: whether counterparts without pools may have it.
    """

    name: str
    options: Callable[[Place], Mapping[str, Any] | None]
    plain: bool


_KINDS: dict[str, Kind] = {}

# Hidden units that may stay, as a share of C, beside a map and alone; shares of the heads, of the channels of each, and
# of the channels in a bottleneck or basic block.
_UNITS, _UNITS_ALONE = (0.25, 0.5, 1, 2), (0.5, 1, 2)
_HEADS = (6, 3, 2)
_HEAD_CHANNELS = (8, 4, 2)
_CHANNELS = (8, 4, 2)


def register_option(
    name: str, options: Mapping[str, Any] | Callable[[Place], Mapping[str, Any] | None], *, plain: bool = False
) -> None:
    """Add a kind of option, for ``compress(..., kinds=[...])``.

    Args:
        name: its name.
        options: of :func:`cp_vision.replace_blocks` (``{"kind": "mine", "rank": 8}``), or a function that gives them
            for a :class:`cp_vision.anatomy.places.Place`, or None where the kind isn't to be offered.
        plain: whether it is a map of each token by itself, which counterparts without pools may have.

    Raises:
        UserError: a name that is none or that of leaving blocks out, or options that are neither.
    """
    if not isinstance(name, str) or not name or name == DROP:
        raise UserError(f"option {name!r} must be a name other than {DROP!r}")
    if isinstance(options, Mapping):
        fixed = dict(options)
        _KINDS[name] = Kind(name, lambda place: fixed, plain)
    elif callable(options):
        _KINDS[name] = Kind(name, options, plain)
    else:
        raise UserError(f"option {name!r} needs options of replace_blocks, or a function of a place, not {options!r}")


def kinds_of(names: Iterable[str]) -> list[Kind]:
    """The kinds of these names, but for leaving out, which is always there.

    Raises:
        UserError: names that are none.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise UserError(f"kinds {names!r} must be a list of names, such as {list(DEFAULT_KINDS)}")
    chosen = [name for name in names if name != DROP]
    for name in chosen:
        if name not in _KINDS:
            raise UserError(f"kind {name!r} is not one of {listed([DROP, *_KINDS], 20)}{closest(str(name), _KINDS)}")
    return [_KINDS[name] for name in dict.fromkeys(chosen)]


def _of_rank(divisor: int, pool: bool) -> Callable[[Place], Mapping[str, Any] | None]:
    def options(place: Place) -> Mapping[str, Any] | None:
        # In place of the MLP half of a transformer block a pool explains nothing that the map doesn't.
        if pool and not place.residual and place.name.rpartition(".")[2] in ("mlp", "ffn"):
            return None
        return {"pool": pool, "rank": max(1, place.channels // divisor)}

    return options


def _of_units(share: float) -> Callable[[Place], Mapping[str, Any] | None]:
    """Hidden units of an MLP half, or expanded channels of an inverted residual, as many as a share of C."""
    shares = [share, *(other for other in _UNITS if other < share)]

    def options(place: Place) -> Mapping[str, Any] | None:
        step = place.part_size if place.part_size > 1 else 8
        count, *fewer = (_rounded(each * place.channels, step) for each in shares)
        if _is_attention(place) or _is_narrow(place) or count >= place.parts * place.part_size or count in fewer:
            return None
        return {"kind": "narrow_conv", "channels": count} if place.residual else {"kind": "narrow_mlp", "units": count}

    return options


def _alone(options: Callable[[Place], Mapping[str, Any] | None]) -> Callable[[Place], Mapping[str, Any] | None]:
    """The same in an MLP half without a map beside it: more units for as much."""

    def without_map(place: Place) -> Mapping[str, Any] | None:
        found = options(place)
        return None if found is None or found["kind"] != "narrow_mlp" else {**found, "map": False}

    return without_map


def _of_channels(divisor: int) -> Callable[[Place], Mapping[str, Any] | None]:
    """A share of the channels in a block that isn't expanded, unless a smaller share comes to as many."""
    divisors = [divisor, *(other for other in _CHANNELS if other > divisor)]

    def options(place: Place) -> Mapping[str, Any] | None:
        if not place.residual or not place.parts or not _is_narrow(place):
            return None
        channels = place.parts * place.part_size
        step = place.part_size if place.part_size > 1 else min(8, max(1, channels // _CHANNELS[0]))
        count, *fewer = (_rounded(channels / each, step) for each in divisors)
        if count >= channels or count in fewer:
            return None
        return {"kind": "narrow_conv", "channels": count}

    return options


def _rounded(count: float, step: int) -> int:
    return max(step, round(count / step) * step)


def _is_narrow(place: Place) -> bool:
    """Whether a whole block is no wider in its middle than at its ends."""
    return place.residual and place.parts * place.part_size <= place.channels


def _of_heads(divisor: int) -> Callable[[Place], Mapping[str, Any] | None]:
    """A share of the heads of an attention half, unless a smaller share comes to as many."""
    smaller = [other for other in _HEADS if other > divisor]

    def options(place: Place) -> Mapping[str, Any] | None:
        counts = [max(1, round(place.parts / each)) for each in (divisor, *smaller)]
        # Thin heads leave less than whole ones of the same cost.
        if not _is_attention(place) or place.head_channels or counts[0] >= place.parts or counts[0] in counts[1:]:
            return None
        return {"kind": "narrow_attention", "heads": counts[0]}

    return options


def _of_head_channels(divisor: int) -> Callable[[Place], Mapping[str, Any] | None]:
    """All heads of an attention half, with a share of the channels of each; what a map would add they say as well."""

    def options(place: Place) -> Mapping[str, Any] | None:
        channels = place.head_channels // divisor
        if not _is_attention(place) or channels < 1:
            return None
        return {"kind": "narrow_attention", "heads": place.parts, "head_channels": channels, "map": False}

    return options


def _is_attention(place: Place) -> bool:
    return not place.residual and place.name.rpartition(".")[2] not in ("mlp", "ffn")


# Rank C/3 of pool and map costs what the full map does.
register_option("linear/8", _of_rank(8, pool=False), plain=True)
register_option("linear", _of_rank(1, pool=False), plain=True)
register_option("pool/8", _of_rank(8, pool=True))
register_option("pool/3", _of_rank(3, pool=True))
register_option("pool", _of_rank(1, pool=True))

# What stays of the middle of a block beside a map.
for _share in _UNITS:
    register_option(f"units {_share:g}C", _of_units(_share), plain=True)
for _share in _UNITS_ALONE:
    register_option(f"units {_share:g}C alone", _alone(_of_units(_share)), plain=True)
for _divisor in _HEADS:
    register_option(f"heads/{_divisor}", _of_heads(_divisor), plain=True)
for _divisor in _HEAD_CHANNELS:
    register_option(f"thin heads/{_divisor}", _of_head_channels(_divisor), plain=True)
for _divisor in _CHANNELS:
    register_option(f"channels/{_divisor}", _of_channels(_divisor), plain=True)

DEFAULT_KINDS = tuple(_KINDS)
