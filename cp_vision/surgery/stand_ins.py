"""The kinds of stand-ins that may take the place of blocks, by name; others can be added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..anatomy.hidden import hidden_of
from ..anatomy.places import Place
from ..layers.context_pool_block import ContextPoolBlock
from ..layers.kept_channels import KeptChannels
from ..layers.kept_filters import KeptFilters
from ..layers.kept_heads import KeptHeads
from ..layers.kept_units import KeptUnits
from ..layers.read_out import ReadOut
from ..shared.errors import UserError, closest, listed

__all__ = ["StandIn", "check_stand_in_options", "has_rank", "make_stand_in", "register_stand_in", "stand_in_options"]


class StandIn(Protocol):
    """What a kind's function makes: an ``nn.Module`` that takes and gives maps, and can be fitted in closed form.

    Shapes: B batch, C channels, H x W grid, P prefix tokens, n of them in one part, F features of that part.

    Attributes:
        prefix: P.
        residual: whether its input is part of its output.
    """

    prefix: int
    residual: bool

    def __call__(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> Any:
        """Map (B, C, H, W) to the same shape; with P > 0, that and (B, P, C) to a tuple of both."""

    def features(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> list[Tensor]:
        """What the linear maps at its end read: (B, H W, F), then (B, 1, F') for each prefix token."""

    def read_outs(self) -> list[ReadOut]:
        """These linear maps, in the same order; they make up the output, but for a residual."""

    def macs(self, grid: tuple[int, int]) -> int:
        """Cost of one map of this height and width in MACs."""


class _Kind(NamedTuple):
    make: Callable[..., Any]
    options: tuple[str, ...]


_KINDS: dict[str, _Kind] = {}

# Share of what it replaces that a stand-in of the default rank costs at most.
_MOST = 0.5

# Features whose products are summed at most: of 6,000 such sums take 290 MB, and a fit needs several.
_MOST_SUMS = 6000


def register_stand_in(kind: str, make: Callable[..., Any], options: Iterable[str] = ()) -> None:
    """Add a kind of stand-in, for ``replace_blocks(..., kind=...)``.

    Args:
        kind: its name.
        make: called as ``make(modules, place, **options)`` with the modules to replace, from input to output, a
            :class:`cp_vision.anatomy.places.Place` and options by keyword; it gives a :class:`StandIn`. ValueError and
            TypeError are reported as a mistake in the options.
        options: their names; ``rank`` among them lets users give a ``share`` of the MACs in place of it.

    Raises:
        UserError: a name that is none, or a function that can't be called.
    """
    if not isinstance(kind, str) or not kind:
        raise UserError(f"kind {kind!r} must be a name")
    if not callable(make):
        raise UserError(f"kind {kind!r} needs a function that makes a stand-in, not {make!r}")
    _KINDS[kind] = _Kind(make, tuple(options))


def check_stand_in_options(options: Any) -> None:
    """Raise a UserError that names kinds or options of stand-ins unless these are some of them."""
    _check_mapping(options)
    kind = _kind_of(options)
    allowed = ["kind", *(["share"] if "rank" in kind.options else []), *kind.options]
    for name in options:
        if name not in allowed:
            raise UserError(
                f"unknown replacement option {name!r}{closest(name, allowed)} (options: {', '.join(allowed)})"
            )


def stand_in_options(of_all: Mapping[str, Any], own: Any = None) -> dict[str, Any]:
    """The options of one stand-in: its own over those of all.

    Args:
        of_all: options of all stand-ins.
        own: its own ones; either of ``rank`` and ``share`` takes the place of both.

    Raises:
        UserError: an unknown kind or option, or options that are no dictionary.
    """
    own = {} if own is None else own
    _check_mapping(own)
    _check_mapping(of_all)
    sizes = ("rank", "share")
    has_size = any(own.get(size) is not None for size in sizes)
    options = {**{name: value for name, value in of_all.items() if not (has_size and name in sizes)}, **own}
    check_stand_in_options(options)
    return options


def has_rank(options: Mapping[str, Any]) -> bool:
    """Whether stand-ins of this kind have a rank to choose."""
    return "rank" in _kind_of(options).options


def make_stand_in(modules: Sequence[nn.Module], place: Place, options: Mapping[str, Any]) -> Any:
    """Make a stand-in for a place: of the rank that is given, or of its default rank if that costs half at most.

    Args:
        modules: what it replaces.
        place: where that is.
        options: ``kind``, ``share`` (of the place's MACs, in place of ``rank``) and those of the kind, checked by name.

    Raises:
        UserError: an option outside its range, or a stand-in that costs as much as what it replaces.
    """
    own = {name: value for name, value in options.items() if name not in ("kind", "share")}
    make, allowed = _kind_of(options)

    def of_rank(rank: int) -> Any:
        return make(modules, place, **{**own, "rank": rank})

    try:
        if "share" in options:
            if own.get("rank") is not None:
                raise ValueError("give rank or share, not both")
            made = of_rank(_rank_of_share(of_rank, place, options["share"]))
        else:
            made = make(modules, place, **own)
            # What keeps a part of a block costs what that part does.
            has_default = "rank" in allowed and own.get("rank") is None and getattr(made, "kept", None) is None
            if has_default and _macs(made, place) > _MOST * place.macs:
                made = of_rank(_rank_of_share(of_rank, place, _MOST))
    except (TypeError, ValueError) as error:
        raise UserError(f"replace {place.name!r} with {dict(options)}: {error}") from error
    macs = _macs(made, place)
    if macs >= place.macs:
        raise UserError(
            f"replace {place.name!r} with {dict(options)}: the stand-in costs {macs:,} MACs, what it replaces "
            f"{place.macs:,}; take a smaller rank, or share=0.5"
        )
    return made


def _rank_of_share(make: Callable[[int], Any], place: Place, share: Any) -> int:
    """The highest rank within a share of the place's MACs; cost grows evenly with rank."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ValueError(f"share {share!r} must be a number between 0 and 1")
    bound, low, high = share * place.macs, 0, place.channels
    while low < high:
        middle = (low + high + 1) // 2
        if _macs(make(middle), place) <= bound:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        least = _macs(make(1), place) / place.macs
        raise ValueError(f"not even rank 1 costs so little; the least share is {least:.3f}")
    return low


def _check_mapping(options: Any) -> None:
    if not isinstance(options, Mapping):
        raise UserError(f"replacement options {options!r} must be a dictionary, such as {{'rank': 64}}")


def _macs(stand_in: Any, place: Place) -> int:
    return int(place.count * stand_in.macs(place.grid))


def _kind_of(options: Mapping[str, Any]) -> _Kind:
    kind = options.get("kind", "context_pool")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"replacement kind {kind!r} is not one of {listed(_KINDS)}")
    return _KINDS[kind]


def _context_pool(modules: Sequence[nn.Module], place: Place, **options: Any) -> ContextPoolBlock:
    return ContextPoolBlock(place.channels, residual=place.residual, norm=place.norm, prefix=place.prefix, **options)


def _narrow(
    which: tuple[type[nn.Module], ...], part: str, what: str, modules: Sequence[nn.Module], place: Place, **options: Any
) -> ContextPoolBlock:
    """A stand-in that keeps some parts of the middle of what it replaces."""
    hidden = hidden_of(modules[0]) if len(modules) == 1 else None
    if hidden is None or not isinstance(hidden.kept, which):
        raise ValueError(f"it stands in for {what}")
    count, size = options.pop(part, None), hidden.part_size
    most = hidden.parts * size
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= most or count % size:
        groups = f", in whole groups of {size}" if size > 1 else ""
        raise ValueError(f"{part} {count!r} must be a whole number from {size} to {most}, those that there are{groups}")
    if (sums := hidden.sums) > _MOST_SUMS:
        raise ValueError(
            f"it would need sums of products of {sums:,} values; more than {_MOST_SUMS:,} take too much memory"
        )
    # Until a fit chooses.
    kept: Any = hidden.kept.some(torch.arange(count // size, device=hidden.out.device))
    if (channels := options.pop("head_channels", None)) is not None:
        most = kept.thinnable
        if not isinstance(channels, int) or isinstance(channels, bool) or not 1 <= channels < most:
            can = f"a whole number below the {most} that there are" if most else "left out: its heads can't be thinned"
            raise ValueError(f"head_channels {channels!r} must be {can}")
        kept = kept.thin(channels)
    if options.get("rank") is None and isinstance(kept, KeptChannels) and hidden.kept.size <= place.channels:
        # A read-out of a higher rank would cost what the ends of a bottleneck do.
        options["rank"] = min(count, place.channels)
    return _context_pool(modules, place, **{"pool": False, **options}, kept=kept)


_PARTS: dict[str, tuple[tuple[type[nn.Module], ...], str, str]] = {
    "narrow_mlp": ((KeptUnits,), "units", "an MLP half of two layers, without a norm between them"),
    "narrow_attention": (
        (KeptHeads,),
        "heads",
        "an attention half whose heads know of no norms or gates, nor of positions but for Swin's",
    ),
    "narrow_conv": (
        (KeptChannels, KeptFilters),
        "channels",
        "an inverted residual, bottleneck or basic block that keeps its map's shape",
    ),
}
for _name, _about in _PARTS.items():
    _own = (_about[1], "head_channels") if _about[1] == "heads" else (_about[1],)
    register_stand_in(_name, partial(_narrow, *_about), (*_own, "map", "pool", "rank"))
register_stand_in(
    "context_pool",
    _context_pool,
    (
        *("rank", "pool", "supports", "support_range", "sigma_min", "hidden"),
        *("learned_weight", "learned_support", "backend"),
    ),
)
