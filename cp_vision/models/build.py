"""Build a ContextPool model from a timm base: the base's own builder, then drops, pools and weights."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

import torch
from timm.models import (
    PretrainedCfg,
    is_model,
    is_model_in_modules,
    list_models,
    load_pretrained,
    model_entrypoint,
    resolve_pretrained_cfg,
    split_model_name_tag,
)
from torch import Tensor, nn

from ..anatomy.block import CHILD, DroppedBlock
from ..anatomy.default_pools import default_pools
from ..anatomy.known_families import is_known, list_blocks
from ..shared.errors import UserError, closest, listed
from ..surgery.drop_blocks import drop_blocks
from ..surgery.insert_pools import check_pool_options, insert_pools
from .features_only import can_wrap, wrap_features

__all__ = ["STORED", "build_context_pooled", "check_base", "pool_and_drop"]

# What a model's name begins with where it is kept outside of timm's registry.
STORED = ("local-dir:", "hf-hub:")


def build_context_pooled(
    base: str,
    variant: str,
    *,
    pretrained: bool = False,
    pretrained_cfg: str | Mapping[str, Any] | PretrainedCfg | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    pools: str | Sequence[str] = "default",
    drops: Sequence[str] = (),
    pool_options: Mapping[str, Any] | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    feature_cls: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build the timm model ``base`` with pools inserted and blocks dropped.

    Args:
        base: timm name of the base, with or without a pretrained tag.
        variant: name that the result carries as its architecture.
        pretrained: load weights. The base's own weights go through timm's loader before the pools are
            inserted; a checkpoint named by ``pretrained_cfg`` may hold pools and lack dropped blocks.
        pretrained_cfg: as for any timm model.
        pretrained_cfg_overlay: as for any timm model.
        pools: sites, or ``"default"``: after every block of a transformer (but the last where its class token alone
            is looked at), and of a ConvNet after the blocks at stride 16 or more.
        drops: blocks to leave out.
        pool_options: options of :func:`cp_vision.insert_pools` (``mode``, ``support_range``, ...).
        features_only: return a feature extractor, as timm does.
        out_indices: which features; default timm's for this base.
        feature_cls: how timm extracts them; default timm's for this base.
        **kwargs: arguments of the base.

    Returns:
        The model, or with ``features_only`` timm's feature extractor around it. The parameters of a pool are
        ``<site>.context_pool.*``; all other keys of the state dict are the base's.

    Raises:
        UserError: an unknown base, one that has pools already or can't be pooled, wrong pools, drops or options, a
            checkpoint that doesn't fit, ``out_indices`` or ``feature_cls`` without ``features_only``, a
            ``feature_cls`` that takes the model apart.
        TypeError: an argument that the base doesn't take.
        RuntimeError: an unknown pretrained tag, or no pretrained weights where they are wanted.
    """
    check_base(base)
    feature_args = {"out_indices": out_indices, "feature_cls": feature_cls}
    feature_args = {name: value for name, value in feature_args.items() if value is not None}
    if feature_args and not features_only:
        raise UserError(f"{', '.join(feature_args)} needs features_only=True")
    arch, tag = split_model_name_tag(base)
    if is_model_in_modules(arch, ["cp_models"]):
        raise UserError(f"base {base!r} has pools already; name the plain base, {base.removeprefix('cp_')!r}")
    if isinstance(pretrained_cfg, str) or not pretrained_cfg:
        cfg = resolve_pretrained_cfg(arch, pretrained_cfg or tag, pretrained_cfg_overlay)
        if (pretrained_cfg or tag) == "fcmae":
            # ConvNeXt V2's self-supervised weights have no head, which timm's builder knows by the tag alone.
            kwargs.setdefault("pretrained_strict", False)
    else:
        cfg = resolve_pretrained_cfg(variant, pretrained_cfg, pretrained_cfg_overlay)
    cfg = dataclasses.replace(cfg, architecture=variant)
    # Weights that somebody names are read after the surgery, since they may be those of a pooled model.
    named = not cfg.custom_load and bool(cfg.source or cfg.file or cfg.state_dict)
    built_cfg = dataclasses.replace(cfg, state_dict=None).to_dict() if named else cfg.to_dict()
    model = model_entrypoint(arch)(pretrained=pretrained and not named, pretrained_cfg=built_cfg, **kwargs)
    pool_and_drop(model, pools, drops, pool_options)
    if pretrained and named:
        # timm lets the attention pool of SigLIP's weights go where the model has another one.
        loose = "siglip" in arch and getattr(model, "global_pool", "map") != "map"
        strict = kwargs.get("pretrained_strict", not loose)
        load_pretrained(
            model,
            cfg.to_dict(),
            num_classes=model.num_classes,
            in_chans=kwargs.get("in_chans", 3),
            filter_fn=partial(_fit_checkpoint, arch=arch, classifier=cfg.classifier, strict=strict),
            strict=strict,
            cache_dir=kwargs.get("cache_dir"),
        )
    if not features_only:
        return model
    extract = partial(model_entrypoint(arch), features_only=True, pretrained_cfg=built_cfg, **kwargs)
    with torch.device("meta"):
        plain = extract(**feature_args)
        if feature_cls is None and not can_wrap(plain):
            # A family with an extractor of its own (EfficientNet): timm's general one gives the same features.
            plain = extract(**feature_args, feature_cls="getter")
    return wrap_features(model, plain)


def pool_and_drop(
    model: nn.Module, pools: str | Sequence[str], drops: Sequence[str], pool_options: Mapping[str, Any] | None
) -> nn.Module:
    """Drop blocks, then insert pools, as a model's arguments say.

    Args:
        model: the base; changed in place.
        pools: as for :func:`build_context_pooled`, like the others.
        drops: blocks to leave out.
        pool_options: options of all pools.

    Raises:
        UserError: wrong pools, drops or options.
    """
    if not isinstance(drops, Sequence):
        raise UserError(f"drops {drops!r} must be a list of block names, such as ['blocks.5']")
    drop_blocks(model, drops)
    options = {} if pool_options is None else pool_options
    check_pool_options(options)
    return insert_pools(model, _pool_names(model, pools, options.get("mode", "gated")), **options)


def check_base(base: str) -> None:
    """Raise a UserError that offers the closest names unless timm knows ``base``."""
    if not isinstance(base, str) or not base:
        raise UserError(
            f"base {base!r} must be the name of a timm model, for example 'resnet50' (context_pooled needs base=)"
        )
    if not is_model(base):
        arch = split_model_name_tag(base)[0]
        raise UserError(f"unknown base model {base!r}{closest(arch, list_models())} (timm.list_models() has all)")


def _pool_names(model: nn.Module, pools: str | Sequence[str], mode: str) -> Sequence[str]:
    if pools == "default":
        names = default_pools(model, mode)
        if not names and not is_known(model):
            found = listed(block.name for block in list_blocks(model))
            raise UserError(
                f"{type(model).__name__} has no blocks to pool after by default (a ConvNet's at stride 16 or more, of "
                f"those that can be pooled at all); name pools= among {found}"
            )
        return names
    if isinstance(pools, str) or not isinstance(pools, Sequence):
        raise UserError(f"pools {pools!r} must be 'default' or a list of block names, such as ['blocks.5']")
    return pools


def _fit_checkpoint(
    state_dict: dict[str, Tensor], model: nn.Module, arch: str, classifier: str | tuple[str, ...] | None, strict: bool
) -> dict[str, Tensor]:
    """Fit a checkpoint, pooled or plain, to a pooled model of the base ``arch``.

    Where strict, only the head may be missing or left over. Keys of dropped blocks are left out. A pool that the
    checkpoint lacks as a whole keeps its initial values, which in gated mode change no output.
    """
    dropped = tuple(f"{name}." for name, m in model.named_modules() if isinstance(m, DroppedBlock))
    # Before the family's filter, too, which may look up the modules of keys.
    state_dict = {key: value for key, value in state_dict.items() if not key.startswith(dropped)}
    module = sys.modules[type(model).__module__]
    family_filter = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if family_filter is not None:
        parameters = signature(family_filter).parameters
        options = {key: value for key, value in _filter_options(arch, module).items() if key in parameters}
        state_dict = family_filter(*(state_dict, model)[: len(parameters)], **options)
    fitted = {key: value for key, value in state_dict.items() if not key.startswith(dropped)}
    own = model.state_dict()
    for prefix in {key.partition(f".{CHILD}.")[0] + f".{CHILD}." for key in own if f".{CHILD}." in key}:
        if not any(key.startswith(prefix) for key in fitted):
            fitted.update({key: value for key, value in own.items() if key.startswith(prefix)})
    heads = (classifier,) if isinstance(classifier, str) else classifier or ()
    heads = tuple(f"{head}." for head in heads)
    missing = [key for key in own if key not in fitted and not key.startswith(heads)]
    unexpected = [key for key in fitted if key not in own and not key.startswith(heads)]
    if strict and (missing or unexpected):
        raise UserError(
            "the checkpoint is not one of this architecture (same base, pools and drops?): "
            f"missing {listed(missing, 3)}; unexpected {listed(unexpected, 3)}"
        )
    return fitted


def _filter_options(arch: str, module: Any) -> dict[str, Any]:
    """Options that timm's builders, which are not asked here, give to the filters of their family's checkpoints."""
    # DeiT III's own names of its layer scales, which no other ViT's checkpoint has.
    options: dict[str, Any] = {"adapt_layer_scale": True}
    if "flexi" in arch or "radio" in arch:
        # How their position embeddings were resized in training.
        options |= {"interpolation": "bilinear", "antialias": False}
    if any(name in arch for name in getattr(module, "_RADIO_ALIGN_CORNERS", ())):
        options["align_corners"] = True
    return options
