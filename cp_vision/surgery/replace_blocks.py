"""Putting stand-ins in the place of blocks. Everything is checked before anything is changed."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from ..anatomy.hidden import WindowMask
from ..anatomy.hidden_channels import last_act
from ..anatomy.known_families import list_blocks
from ..anatomy.places import Place, find_places, grid_of
from ..anatomy.replacement import Replacement, RestOfRun
from ..anatomy.token_grid import TokenGrid
from ..layers.kept_window_heads import KeptWindowHeads
from ..shared.errors import UserError
from .check_place import check_whole_grid
from .names import as_names, dtype_and_device
from .rehearse import rehearse
from .saved_arguments import note_changes
from .snapshot import unchanged_on_error
from .stand_ins import has_rank, make_stand_in, stand_in_options

__all__ = ["make_replacement", "put_replacement", "replace_blocks"]


def replace_blocks(
    model: nn.Module, runs: Iterable[str] | Mapping[str, Mapping[str, Any]], **options: Any
) -> nn.Module:
    """Put a stand-in in the place of each named run of blocks, or half of a block.

    A new stand-in gives for whole blocks its input, as if they were dropped, and for a half nothing to add;
    :func:`cp_vision.fit_blocks` fits it to what stood there. Its parameters are ``<first block>.context_pool_block.*``;
    all other keys of the state dict stay.

    Args:
        model: a timm or torchvision model; changed in place.
        runs: blocks by name (``"blocks.4"``), runs of blocks of one shape by their first and last
            (``"blocks.4:blocks.6"``, both included), attention or MLP halves of transformer blocks
            (``"blocks.3.attn"``, ``"blocks.3.mlp"``); a mapping says for each which options it has over those for all.
        **options: ``kind`` of stand-in (``"context_pool"``, or what :func:`cp_vision.register_stand_in` added);
            ``share``, the MACs it may cost as a share of what it replaces, in place of ``rank``; of
            ``"context_pool"`` those of :class:`cp_vision.ContextPoolBlock` other than channels, residual, norm and
            prefix: ``rank``, ``pool``, ``supports``, and those of its pools.

    Returns:
        The same model.

    Raises:
        UserError: a name that is none, a run that is none, a block that can't be replaced or is pooled, a wrong option,
            a stand-in that costs as much as what it replaces. The model is then as it was;
            :class:`cp_vision.Snapshot` undoes what has succeeded.

    Source: our extension of Huang et al., ICML 2022: pooling beside attention, and in place of it.
    """
    names = as_names(runs, "replaces")
    wanted = {}
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"replace {name!r} is named twice; name each once")
        wanted[name] = stand_in_options(options, runs[name] if isinstance(runs, Mapping) else {})
    if not names:
        stand_in_options(options)
        return model
    places = find_places(model, names)
    _check(model, places)
    rehearse(model, lambda trial: _replace(trial, places, wanted))
    with unchanged_on_error(model):
        _replace(model, places, wanted)
        note_changes(model)
    return model


def _check(model: nn.Module, places: Sequence[Place]) -> None:
    replaced = {path for place in places if place.residual for path in place.modules}
    if replaced and replaced >= {block.name for block in list_blocks(model)}:
        raise UserError(f"replaces name all {len(replaced)} blocks; keep at least one")
    check_whole_grid(model, "stand-ins")


def _replace(model: nn.Module, places: Sequence[Place], wanted: Mapping[str, Mapping[str, Any]]) -> None:
    tokens = functools.cache(lambda: TokenGrid(model))
    made = [make_replacement(model, place, wanted[place.name], tokens) for place in places]
    for place, replacement in zip(places, made, strict=True):
        put_replacement(model, place, replacement)


def make_replacement(
    model: nn.Module, place: Place, options: Mapping[str, Any], tokens: Callable[[], TokenGrid]
) -> Replacement:
    """Make what stands in a place, and leave it out of the model, which may get a hook that tells the grid.

    Args:
        model: where the place is, before it is changed.
        place: of :func:`cp_vision.anatomy.places.find_places`.
        options: of the stand-in, as of :func:`cp_vision.surgery.stand_ins.stand_in_options`.
        tokens: makes the model's grid of patches, one for all places.

    Raises:
        UserError: a wrong option, or a stand-in that costs as much as what it replaces.
    """
    stand_in, noted = _make(model, place, options)
    if isinstance(kept := getattr(stand_in, "kept", None), KeptWindowHeads):
        try:
            kept.mask = WindowMask(model.get_submodule(place.name.rpartition(".")[0])).now
        except ValueError as error:
            raise UserError(f"replace {place.name!r} with {dict(options)}: {error}") from error
    grid = grid_of(model, place, tokens)
    # What keeps a part of a block is added to what the block adds to, before the same activation.
    act = None if kept is None else copy.deepcopy(last_act(model.get_submodule(place.modules[-1])))
    replacement = Replacement(place.name, noted, stand_in, place.layout, grid, place.pair, act)
    return replacement.train(model.get_submodule(place.modules[0]).training)


def put_replacement(model: nn.Module, place: Place, replacement: nn.Module) -> None:
    """Put it in its place, unchecked."""
    first, *rest = place.modules
    model.set_submodule(first, replacement)
    for path in rest:
        model.set_submodule(path, RestOfRun())


def _make(model: nn.Module, place: Place, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A stand-in, and the options that make it again, whatever the image size."""
    modules = [model.get_submodule(path) for path in place.modules]
    stand_in = make_stand_in(modules, place, options)
    stand_in.to(**dtype_and_device(*modules, model))
    noted = {name: value for name, value in options.items() if name != "share"}
    if has_rank(options):
        noted["rank"] = stand_in.rank
    try:
        return stand_in, json.loads(json.dumps(noted))
    except (TypeError, ValueError) as error:
        raise UserError(f"replace {place.name!r}: options {noted} must be JSON values: {error}") from error
