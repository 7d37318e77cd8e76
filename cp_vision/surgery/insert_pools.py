"""Changing a model: insert pools, drop blocks. Everything is checked before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

from torch import nn

from ..anatomy.block import Block, has_pool
from ..anatomy.downsamplings import list_poolings
from ..anatomy.known_families import check_names, is_known, list_blocks
from ..layers.context_pool_2d import ContextPool2d
from ..shared.errors import UserError, closest
from .pool_hooks import attach_pools
from .rehearse import rehearse
from .saved_arguments import note_changes
from .strided_pools import replace_pooling

__all__ = ["POOL_MODES", "check_pool_options", "insert_pools"]

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


def _make_pool(channels: int, stride: int, mode: str, options: dict[str, Any]) -> ContextPool2d:
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


def insert_pools(model: nn.Module, names: Iterable[str], *, mode: str = "gated", **options: Any) -> nn.Module:
    """Insert a ContextPool at each named site.

    After blocks, in the default mode, the model's outputs stay what they are until it is trained. A pool at a
    stem or down-sampling takes the place of what made the map smaller, so there the outputs change. The
    parameters of a pool are ``<site>.context_pool.*``; all other keys of the state dict stay.

    Args:
        model: a timm or torchvision model; changed in place.
        names: sites, named as in :func:`cp_vision.find_sites`.
        mode: how pools act at blocks: ``"gated"`` (zero gate at the start), ``"replace"``, or ``"pre_attn"``
            (transformers: pool what attention sees, and nothing else). At stems and down-samplings they replace.
        **options: arguments of :class:`cp_vision.ContextPool2d` other than channels, stride and mode.

    Returns:
        The same model.

    Raises:
        UserError: an unknown, dropped or already pooled site, a wrong option, a model that can't be pooled.
            The model is then as it was.

    Source: Huang et al., ICML 2022 (pools before attention, and in place of a ConvNet's pooling); ``"replace"``,
    ``"pre_attn"`` and a stage's strides as a pooling are our reading of it. The gate, and pools after the blocks
    of a ConvNet, are our extensions.
    """
    names = _as_names(names, "pools")
    if mode not in POOL_MODES:
        raise UserError(f"pool mode {mode!r} is not one of {', '.join(POOL_MODES)}")
    check_pool_options(options)
    if names and not is_known(model):
        rehearse(model, lambda trial: _insert(trial, names, mode, options))
    _insert(model, names, mode, options)
    if names:
        note_changes(model, {"mode": mode, **options})
    return model


def _insert(model: nn.Module, names: tuple[str, ...], mode: str, options: dict[str, Any]) -> None:
    blocks = {block.name: block for block in list_blocks(model)}
    poolings = {pooling.name: pooling for pooling in list_poolings(model)}
    check_names(model, names, {**blocks, **poolings}, "pool")
    for name in names:
        if has_pool(model.get_submodule(name)):
            raise UserError(f"pool {name!r}: a pool already stands there; insert one pool a site")
        if mode == "pre_attn":
            _check_attention(name, blocks.get(name))
    if names and not isinstance(getattr(model, "patch_drop", None), nn.Identity | None):
        raise UserError("patch_drop_rate leaves holes in the token grid; use patch_drop_rate=0 with pools")
    like = next(model.parameters())
    at_blocks, at_poolings = [], []
    for name in names:
        stride = poolings[name].stride if name in poolings else 1
        channels = (poolings.get(name) or blocks[name]).channels
        pool = _make_pool(channels, stride, mode, options).to(device=like.device, dtype=like.dtype)
        pool.train(model.get_submodule(name).training)
        if name in poolings:
            at_poolings.append((poolings[name], pool))
        else:
            at_blocks.append((blocks[name], pool))
    attach_pools(model, at_blocks, mode == "pre_attn")
    for pooling, pool in at_poolings:
        replace_pooling(model, pooling, pool)


def _check_attention(name: str, block: Block | None) -> None:
    if block is None or not block.transformer:
        raise UserError(f"pool {name!r}: mode 'pre_attn' needs attention; use 'gated' or 'replace'")
    if block.attention is None:
        raise UserError(
            f"pool {name!r}: {type(block.module).__name__} has no separate attention over the whole grid for mode "
            "'pre_attn'; use 'gated' or 'replace'"
        )


def _as_names(names: Iterable[str], what: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise UserError(f"{what} {names!r} must be a list of block names, not one string; write [{names!r}]")
    if not isinstance(names, Iterable):
        raise UserError(f"{what} {names!r} must be a list of block names")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"{what}: {name!r} is not a block name")
    return names
