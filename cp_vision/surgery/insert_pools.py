"""Inserting pools into a model. Everything is checked before anything is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from torch import nn

from ..anatomy.block import CHILD, Block, has_pool
from ..anatomy.downsamplings import list_poolings
from ..anatomy.known_families import check_names, is_known, list_blocks
from ..layers.context_pool_2d import ContextPool2d
from ..shared.errors import UserError, closest
from .check_place import check_attention, check_block, check_not_compiled, check_whole_grid
from .names import as_names, dtype_and_device
from .pool_hooks import attach_pools
from .rehearse import rehearse
from .saved_arguments import note_changes
from .snapshot import unchanged_on_error
from .strided_pools import replace_pooling

__all__ = ["POOL_MODES", "check_pool_options", "insert_pools", "insert_pools_as_built"]

POOL_MODES = ("gated", "replace", "pre_attn")


def check_pool_options(options: Mapping[str, Any]) -> None:
    """Raise a UserError that names the options of a pool inside a model unless these are some of them."""
    if not isinstance(options, Mapping):
        raise UserError(f"pool options {options!r} must be a dictionary, such as {{'mode': 'replace'}}")
    # The site gives channels and stride.
    allowed = ["mode", *(n for n in signature(ContextPool2d).parameters if n not in ("channels", "stride", "mode"))]
    for name in options:
        if name not in allowed:
            raise UserError(f"unknown pool option {name!r}{closest(name, allowed)} (options: {', '.join(allowed)})")


def _make_pool(channels: int, stride: int, mode: str, **options: Any) -> ContextPool2d:
    """Make the pool of one site.

    ``"pre_attn"`` is a replacing pool that stands before attention, and a strided pool always replaces.

    Raises:
        UserError: an option outside its range.
    """
    try:
        return ContextPool2d(
            channels, stride, mode="gated" if mode == "gated" and stride == 1 else "replace", **options
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"pool options {options}: {error}") from error


def insert_pools(
    model: nn.Module, names: Iterable[str] | Mapping[str, Mapping[str, Any]], *, mode: str = "gated", **options: Any
) -> nn.Module:
    """Insert a ContextPool at each named site.

    After blocks, in the default mode, the model's outputs stay what they are until it is trained. A pool at a
    stem or down-sampling takes the place of what made the map smaller, so there the outputs change. The
    parameters of a pool are ``<site>.context_pool.*``; all other keys of the state dict stay.

    Args:
        model: a timm or torchvision model; changed in place.
        names: sites, named as in :func:`cp_vision.find_sites`; a mapping says for each site which options it has over
            those for all.
        mode: how pools act at blocks: ``"gated"`` (zero gate at the start), ``"replace"``, or ``"pre_attn"``
            (transformers: pool what attention sees, and nothing else). At stems and down-samplings they replace.
        **options: arguments of :class:`cp_vision.ContextPool2d` other than channels, stride and mode.

    Returns:
        The same model.

    Raises:
        UserError: an unknown, dropped or already pooled site, a wrong option, a model that can't be pooled, a site
            inside of what ``Module.compile()`` has compiled, a block that stands at two places or in a Sequential.
            After any error the model is as it was; :class:`cp_vision.Snapshot` undoes what has succeeded.

    Source: Huang et al., ICML 2022 (pools before attention, and in place of a ConvNet's pooling); ``"replace"``,
    ``"pre_attn"`` and a stage's strides as a pooling are our reading of it. The gate, and pools after the blocks
    of a ConvNet, are our extensions.
    """
    sites, wanted = _wanted(names, {"mode": mode, **options})
    if sites:
        _try_out(model, sites, wanted)
    return _insert_whole(model, sites, wanted)


def insert_pools_as_built(
    model: nn.Module, names: Iterable[str] | Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> nn.Module:
    """As :func:`insert_pools`, for what timm has just built: models of known families are not tried out first.

    Args:
        model: changed in place.
        names: sites, or their own options by site.
        options: of all pools; the mode too.
    """
    check_pool_options(options)
    sites, wanted = _wanted(names, {"mode": "gated", **options})
    if sites and not is_known(model):
        _try_out(model, sites, wanted)
    return _insert_whole(model, sites, wanted)


def _wanted(
    names: Iterable[str] | Mapping[str, Mapping[str, Any]], of_all: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Mapping[str, Any]]]:
    """Sites, and the options of each."""
    check_pool_options(of_all)
    check_mode(of_all["mode"])
    wanted: dict[str, Mapping[str, Any]] = {}
    for name in (sites := as_names(names, "pools")):
        own = names[name] if isinstance(names, Mapping) else {}
        check_pool_options(own)
        wanted[name] = {**of_all, **own}
        check_mode(wanted[name]["mode"])
    return sites, wanted


def _try_out(model: nn.Module, sites: tuple[str, ...], wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise a UserError where the pools don't fit, or where one would act more than once an image."""
    calls: Counter[str] = Counter()

    def count(site: str, *_: object) -> None:
        calls[site] += 1

    def change(trial: nn.Module) -> None:
        _insert(trial, sites, wanted)
        for site in sites:
            trial.get_submodule(f"{site}.{CHILD}").register_forward_hook(partial(count, site))

    rehearse(model, change)
    for site, number in calls.items():
        if number > 1:
            raise UserError(
                f"pool {site!r}: {type(model).__name__} runs this block {number} times an image; give each place a "
                "block of its own (copy.deepcopy)"
            )


def _insert_whole(model: nn.Module, sites: tuple[str, ...], wanted: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    with unchanged_on_error(model):
        _insert(model, sites, wanted)
        if sites:
            note_changes(model, wanted)
    return model


def check_mode(mode: Any) -> None:
    """Raise a UserError unless there is such a mode."""
    if mode not in POOL_MODES:
        raise UserError(f"pool mode {mode!r} is not one of {', '.join(POOL_MODES)}")


def _insert(model: nn.Module, names: tuple[str, ...], options: Mapping[str, Mapping[str, Any]]) -> None:
    blocks = {block.name: block for block in list_blocks(model)}
    poolings = {pooling.name: pooling for pooling in list_poolings(model)}
    check_names(model, names, {**blocks, **poolings}, "pool")
    for name in names:
        if has_pool(model.get_submodule(name)):
            raise UserError(f"pool {name!r}: a pool already stands there; insert one pool a site")
        before_attention = options[name]["mode"] == "pre_attn"
        if before_attention:
            check_attention(name, blocks.get(name))
        if name in blocks:
            check_block(model, blocks[name])
        check_not_compiled(model, poolings.get(name) or blocks[name], before_attention)
    if names:
        check_whole_grid(model, "pools")
    at_blocks, at_poolings = [], []
    for name in names:
        place = poolings.get(name) or blocks[name]
        pool = _make_pool(place.channels, getattr(place, "stride", 1), **options[name])
        block = getattr(place, "block", None)
        around = (place.module, *([] if block is None else [block]), model)
        pool.to(**dtype_and_device(*around)).train(place.module.training)
        if isinstance(place, Block):
            at_blocks.append((place, pool, options[name]["mode"] == "pre_attn"))
        else:
            at_poolings.append((place, pool))
    attach_pools(model, at_blocks)
    for pooling, pool in at_poolings:
        replace_pooling(model, pooling, pool)
