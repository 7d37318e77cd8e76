"""Leaving blocks of a model out."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ..anatomy.block import DroppedBlock
from ..anatomy.known_families import check_names, check_removable, is_known, list_blocks
from ..shared.errors import UserError
from .names import as_names
from .rehearse import rehearse
from .saved_arguments import note_changes
from .snapshot import unchanged_on_error

__all__ = ["drop_blocks"]


def drop_blocks(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Leave the named blocks out. The names of all other blocks stay.

    Args:
        model: a timm or torchvision model; changed in place.
        names: block names, as in :func:`cp_vision.find_sites`.

    Returns:
        The same model.

    Raises:
        UserError: an unknown or already dropped block, one that can't be dropped, one with a pool, or all
            blocks at once. After any error the model is as it was; :class:`cp_vision.Snapshot` undoes what has
            succeeded.
    """
    names = as_names(names, "drops")
    if names and not is_known(model):
        rehearse(model, lambda trial: _drop(trial, names))
    with unchanged_on_error(model):
        _drop(model, names)
        if names:
            note_changes(model)
    return model


def _drop(model: nn.Module, names: tuple[str, ...]) -> None:
    blocks = {block.name: block for block in list_blocks(model)}
    check_names(model, names, blocks, "drop")
    for name in names:
        check_removable(f"drop {name!r}", blocks[name], list(blocks.values()))
    if names and len(names) == len(blocks):
        raise UserError(f"drops name all {len(names)} blocks; keep at least one")
    for name in names:
        model.set_submodule(name, DroppedBlock())
