"""Build a ContextPool model from a timm base: the base's own builder, then drops, pools and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.models import (
    PretrainedCfg,
    is_model,
    is_model_in_modules,
    list_models,
    model_entrypoint,
    resolve_pretrained_cfg,
    split_model_name_tag,
)
from torch import nn

from ..anatomy.default_pools import default_pools
from ..anatomy.known_families import is_known, list_blocks
from ..shared.errors import UserError, closest, listed
from ..surgery.drop_blocks import drop_blocks
from ..surgery.insert_pools import check_pool_options, insert_pools_as_built
from ..surgery.names import as_names
from ..surgery.replace_blocks import replace_blocks
from ..surgery.stand_ins import check_stand_in_options, has_rank, stand_in_options
from .features_only import can_wrap, wrap_features
from .load_checkpoint import NamedCheckpoint, names_checkpoint

__all__ = ["STORED", "build_context_pooled", "change_blocks", "check_base"]

# What a model's name begins with where it is kept outside of timm's registry.
STORED = ("local-dir:", "hf-hub:")


# Sites, their options by site, or "default".
Pools = str | Sequence[str] | Mapping[str, Mapping[str, Any]]

# Runs, or their options by run.
Replaces = Sequence[str] | Mapping[str, Mapping[str, Any]]


def build_context_pooled(
    base: str,
    variant: str,
    *,
    pretrained: bool = False,
    pretrained_cfg: str | Mapping[str, Any] | PretrainedCfg | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    pools: Pools = "default",
    drops: Sequence[str] = (),
    pool_options: Mapping[str, Any] | None = None,
    replaces: Replaces = (),
    replace_options: Mapping[str, Any] | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    feature_cls: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build the timm model ``base`` with pools inserted, blocks dropped and blocks replaced.

    Args:
        base: timm name of the base, with or without a pretrained tag.
        variant: name that the result carries as its architecture.
        pretrained: load weights, through timm's own builder, before the pools are inserted. A checkpoint named by
            ``pretrained_cfg`` may hold pools and lack dropped blocks.
        pretrained_cfg: as for any timm model.
        pretrained_cfg_overlay: as for any timm model.
        pools: sites, or ``"default"``: after every block of a transformer (but the last where its class token alone
            is looked at), and of a ConvNet after the blocks at stride 16 or more. A mapping says for each site which
            options it has over ``pool_options``: ``{"blocks.1": {}, "blocks.5": {"mode": "replace"}}``.
        drops: blocks to leave out.
        pool_options: options of :func:`cp_vision.insert_pools` (``mode``, ``support_range``, ...).
        replaces: runs of blocks, or halves, to put stand-ins in place of, see :func:`cp_vision.replace_blocks`; a
            mapping says for each which options it has over ``replace_options``. Without weights of their own they
            begin as if the blocks were dropped.
        replace_options: options of :func:`cp_vision.replace_blocks` (``rank``, ``pool``, ...).
        features_only: return a feature extractor, as timm does.
        out_indices: which features; default timm's for this base.
        feature_cls: how timm extracts them; default timm's for this base.
        **kwargs: arguments of the base.

    Returns:
        The model, or with ``features_only`` timm's feature extractor around it. The parameters of a pool are
        ``<site>.context_pool.*``; all other keys of the state dict are the base's.

    Raises:
        UserError: an unknown base, one that has pools already or can't be pooled, wrong pools, drops, replacements or
            options, a checkpoint that doesn't fit, ``out_indices`` or ``feature_cls`` without ``features_only``, a
            ``feature_cls`` that takes the model apart.
        TypeError: an argument that the base doesn't take.
        RuntimeError: an unknown pretrained tag, or no pretrained weights where they are wanted.
    """
    check_base(base)
    _check_lists(drops, replaces)
    feature_args = {"out_indices": out_indices, "feature_cls": feature_cls}
    feature_args = {name: value for name, value in feature_args.items() if value is not None}
    if feature_args and not features_only:
        raise UserError(f"{', '.join(feature_args)} needs features_only=True")
    arch, tag = split_model_name_tag(base)
    if is_model_in_modules(arch, ["cp_models"]):
        raise UserError(f"base {base!r} has pools already; name the plain base, {base.removeprefix('cp_')!r}")
    # As timm's create_model calls it: some builders look at the tag.
    cfg_args: dict[str, Any] = {
        "pretrained_cfg": pretrained_cfg or tag,
        "pretrained_cfg_overlay": {**(pretrained_cfg_overlay or {}), "architecture": variant},
    }
    make_base = partial(_make_base, arch, cfg_args, kwargs)
    cfg = resolve_pretrained_cfg(arch, **cfg_args)
    checkpoint = None
    if pretrained and names_checkpoint(cfg):
        checkpoint = NamedCheckpoint(cfg, kwargs.get("cache_dir"), kwargs.get("pretrained_strict", True))
    model = checkpoint.build(make_base, [*drops, *replaces]) if checkpoint else make_base(pretrained=pretrained)
    if checkpoint:
        replaces = _with_ranks(replaces, replace_options, checkpoint.ranks())
    change_blocks(model, pools, drops, pool_options, replaces, replace_options)
    if checkpoint:
        checkpoint.load_added(model)
    if not features_only:
        return model
    extract = partial(make_base, features_only=True)
    with torch.device("meta"):
        plain = extract(**feature_args)
        if feature_cls is None and not can_wrap(plain):
            # A family with an extractor of its own (EfficientNet): timm's general one gives the same features.
            plain = extract(**feature_args, feature_cls="getter")
    return wrap_features(model, plain)


def _make_base(
    arch: str,
    cfg_args: Mapping[str, Any],
    kwargs: Mapping[str, Any],
    pretrained: bool = False,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """Call timm's builder of the base, with further entries over its configuration, and further arguments."""
    overlay = {**cfg_args["pretrained_cfg_overlay"], **(pretrained_cfg_overlay or {})}
    args = {**kwargs, **more, "pretrained_cfg": cfg_args["pretrained_cfg"], "pretrained_cfg_overlay": overlay}
    return model_entrypoint(arch)(pretrained=pretrained, **args)


def change_blocks(
    model: nn.Module,
    pools: Pools,
    drops: Sequence[str],
    pool_options: Mapping[str, Any] | None,
    replaces: Replaces = (),
    replace_options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Drop blocks, replace blocks, then insert pools, as a model's arguments say.

    Args:
        model: the base; changed in place.
        pools: as for :func:`build_context_pooled`, like the others.
        drops: blocks to leave out.
        pool_options: options of all pools.
        replaces: what to put stand-ins in place of.
        replace_options: options of all stand-ins.

    Raises:
        UserError: wrong pools, drops, replacements or options.
    """
    _check_lists(drops, replaces)
    drop_blocks(model, drops)
    own = {} if replace_options is None else replace_options
    check_stand_in_options(own)
    replace_blocks(model, replaces, **own)
    options = {} if pool_options is None else pool_options
    check_pool_options(options)
    return insert_pools_as_built(model, _named_pools(model, pools, options.get("mode", "gated")), options)


def _with_ranks(replaces: Replaces, replace_options: Any, ranks: Mapping[str, int]) -> Replaces:
    """Replacements whose ranks are those of a checkpoint, where no rank is given.

    What timm notes of a model are the arguments that it was made with; a share in them, or the default, would be
    another rank at another image size.
    """
    names = as_names(replaces, "replaces")
    if len(set(names)) < len(names):
        return replaces
    made: dict[str, Mapping[str, Any]] = {}
    for name in names:
        own = replaces[name] if isinstance(replaces, Mapping) else {}
        options = stand_in_options({} if replace_options is None else replace_options, own)
        rank = ranks.get(name.partition(":")[0])
        if rank is not None and options.get("rank") is None and has_rank(options):
            own = {**{option: value for option, value in own.items() if option != "share"}, "rank": rank}
        made[name] = own
    return made


def _check_lists(drops: Any, replaces: Any) -> None:
    if not isinstance(drops, Sequence):
        raise UserError(f"drops {drops!r} must be a list of block names, such as ['blocks.5']")
    if not isinstance(replaces, Sequence | Mapping):
        raise UserError(f"replaces {replaces!r} must be a list of runs of blocks, such as ['blocks.4:blocks.5']")


def check_base(base: str) -> None:
    """Raise a UserError that offers the closest names unless timm knows ``base``."""
    if not isinstance(base, str) or not base:
        raise UserError(
            f"base {base!r} must be the name of a timm model, for example 'resnet50' (context_pooled needs base=)"
        )
    if base.startswith(STORED):
        raise UserError(
            f"base {base!r} is a stored model; name the timm architecture in its config.json, and its weights by "
            f"initial_checkpoint={base} (recipes), --weights {base} (cp-search) or "
            "pretrained_cfg_overlay={'file': ...} (create_model)"
        )
    if not is_model(base):
        arch = split_model_name_tag(base)[0]
        raise UserError(f"unknown base model {base!r}{closest(arch, list_models())} (timm.list_models() has all)")


def _named_pools(model: nn.Module, pools: Pools, mode: str) -> Sequence[str] | Mapping[str, Mapping[str, Any]]:
    if pools == "default":
        names = default_pools(model, mode)
        if not names and not is_known(model):
            found = listed(block.name for block in list_blocks(model))
            raise UserError(
                f"{type(model).__name__} has no blocks to pool after by default (a ConvNet's at stride 16 or more, of "
                f"those that can be pooled at all); name pools= among {found}"
            )
        return names
    if isinstance(pools, str) or not isinstance(pools, Sequence | Mapping):
        raise UserError(f"pools {pools!r} must be 'default' or a list of block names, such as ['blocks.5']")
    return pools
