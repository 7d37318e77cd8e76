"""Changing a model: insert pools, drop blocks. Everything is checked before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

from torch import nn

from .blocks import DroppedBlock, list_blocks, select_blocks
from .errors import UserError, closest, listed
from .hooks import attach_pools, has_pool
from .layers import ContextPool2d

__all__ = ["POOL_MODES", "check_pool_options", "drop_blocks", "insert_pools", "make_pool"]

POOL_MODES = ("gated", "replace", "pre_attn")


def check_pool_options(options: Mapping[str, Any]) -> None:
    """Raise a UserError that names the options of a pool inside a model unless these are some of them."""
    # The site gives the channels, and a pool inside a model keeps the grid.
    allowed = ["mode", *(n for n in signature(ContextPool2d).parameters if n not in ("channels", "stride", "mode"))]
    for name in options:
        if name not in allowed:
            raise UserError(f"unknown pool option {name!r}{closest(name, allowed)} (options: {', '.join(allowed)})")


def make_pool(channels: int, mode: str = "gated", **options: Any) -> ContextPool2d:
    """Make the pool of one site.

    Args:
        channels: channels at the site.
        mode: one of :data:`POOL_MODES`; ``"pre_attn"`` is a replacing pool that stands before attention.
        **options: arguments of :class:`cp_vision.ContextPool2d` other than channels, stride and mode.

    Raises:
        UserError: an unknown mode or option, or an option outside its range.
    """
    if mode not in POOL_MODES:
        raise UserError(f"pool mode {mode!r} is not one of {', '.join(POOL_MODES)}")
    check_pool_options(options)
    try:
        return ContextPool2d(channels, mode="replace" if mode == "pre_attn" else mode, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"pool options {options}: {error}") from error


def insert_pools(model: nn.Module, names: Iterable[str], *, mode: str = "gated", **options: Any) -> nn.Module:
    """Insert a ContextPool at each named site.

    In the default mode the model's outputs stay what they are until it is trained. The parameters of a pool
    are ``<site>.context_pool.*``; all other keys of the state dict stay.

    Args:
        model: a timm ResNet or vision transformer; changed in place.
        names: sites, named as in :func:`cp_vision.find_sites`.
        mode: ``"gated"`` (zero gate at the start), ``"replace"``, or ``"pre_attn"`` (transformers: pool what
            attention sees, and nothing else).
        **options: see :func:`make_pool`.

    Returns:
        The same model.

    Raises:
        UserError: an unknown, dropped or already pooled site, a wrong option, a model that can't be pooled.
            The model is then as it was.
    """
    names = _as_names(names, "pools")
    blocks = select_blocks(model, names, "pool")
    for block in blocks:
        if has_pool(block.module):
            raise UserError(f"pool {block.name!r}: a pool already stands there; insert one pool a site")
        if block.kind != "tokens" and mode == "pre_attn":
            raise UserError(f"pool {block.name!r}: mode 'pre_attn' needs attention; use 'gated' or 'replace'")
        if mode == "pre_attn" and not hasattr(block.module, "attn"):
            raise UserError(
                f"pool {block.name!r}: {type(block.module).__name__} has no separate attention for mode "
                "'pre_attn'; use 'gated' or 'replace'"
            )
    if blocks and not isinstance(getattr(model, "patch_drop", None), nn.Identity | None):
        raise UserError("patch_drop_rate leaves holes in the token grid; use patch_drop_rate=0 with pools")
    pools = [make_pool(block.channels, mode, **options) for block in blocks]
    for block, pool in zip(blocks, pools, strict=True):
        like = next(block.module.parameters())
        pool.to(device=like.device, dtype=like.dtype).train(block.module.training)
    attach_pools(model, [(b.module, p) for b, p in zip(blocks, pools, strict=True)], mode == "pre_attn")
    return model


def drop_blocks(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Leave the named blocks out. The names of all other blocks stay.

    Args:
        model: a timm ResNet or vision transformer; changed in place.
        names: block names, as in :func:`cp_vision.find_sites`.

    Returns:
        The same model.

    Raises:
        UserError: an unknown or already dropped block, one that can't be dropped, one with a pool, or all
            blocks at once. The model is then as it was.
    """
    names = _as_names(names, "drops")
    blocks = select_blocks(model, names, "drop")
    for block in blocks:
        if not block.droppable:
            allowed = [b.name for b in list_blocks(model) if b.droppable]
            raise UserError(
                f"drop {block.name!r}: the first block of a stage can't be dropped (droppable: {listed(allowed)})"
            )
        if has_pool(block.module):
            raise UserError(f"drop {block.name!r}: a pool stands there; pools and drops can't share a block")
    if blocks and len(blocks) == len(list_blocks(model)):
        raise UserError(f"drops name all {len(blocks)} blocks; keep at least one")
    for block in blocks:
        parent, _, child = block.name.rpartition(".")
        setattr(model.get_submodule(parent), child, DroppedBlock())
    return model


def _as_names(names: Iterable[str], what: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise UserError(f"{what} {names!r} must be a list of block names, not one string; write [{names!r}]")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"{what}: {name!r} is not a block name")
    return names
