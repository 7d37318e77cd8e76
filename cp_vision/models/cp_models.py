"""The ``cp_*`` names in timm's registry: every architecture of the families below, with ContextPool."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from timm.models import (
    DefaultCfg,
    get_arch_pretrained_cfgs,
    list_models,
    register_model,
    split_model_name_tag,
)
from torch import nn

__all__ = ["BASES", "context_pooled"]

# Modules of timm's: ResNet (with ResNet-D, ResNeXt, Wide ResNet), RegNet, ConvNeXt, Swin, ViT, DeiT and DeiT-III.
_MODULES = (
    "resnet",
    "regnet",
    "convnext",
    "swin_transformer",
    "swin_transformer_v2",
    "vision_transformer",
    "deit",
)

BASES = tuple(list_models(module=list(_MODULES)))
"""timm names of the bases that have a ``cp_<base>`` of their own."""

# Read by timm's register_model: pretrained configurations by architecture.
default_cfgs: dict[str, DefaultCfg] = {}


def _register(base: str) -> None:
    """Register ``cp_<base>`` with the base's pretrained tags, weights and data configuration."""
    name = f"cp_{base}"

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        # Not above: this module is imported right after timm, which may be while the builder's own modules import timm.
        from .build import build_context_pooled

        return build_context_pooled(base, name, pretrained=pretrained, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = __name__
    entrypoint.__doc__ = (
        f"{base} with ContextPool; pools=, drops=, replaces=, pool_options= and replace_options= besides the base's "
        "arguments; what they are and what is raised: see :func:`cp_vision.models.build.build_context_pooled`."
    )
    cfgs = {split_model_name_tag(full)[1]: cfg for full, cfg in get_arch_pretrained_cfgs(base).items()}
    default_cfgs[name] = DefaultCfg(
        tags=deque(cfgs),
        # Copies, in which timm has spelled out the base's hub id.
        cfgs=cfgs,
        is_pretrained=any(cfg.has_weights for cfg in cfgs.values()),
    )
    setattr(sys.modules[__name__], name, register_model(entrypoint))


@register_model
def context_pooled(pretrained: bool = False, base: str = "", **kwargs: Any) -> nn.Module:
    """Any supported timm model with ContextPool: ``timm.create_model("context_pooled", base="resnet50")``.

    Args:
        pretrained: load weights.
        base: timm name of the base, with or without a pretrained tag; it has to be given.
        **kwargs: further arguments of :func:`cp_vision.models.build.build_context_pooled`.

    Raises:
        UserError: no base, or as :func:`cp_vision.models.build.build_context_pooled`.
        TypeError: an argument that the base doesn't take.
        RuntimeError: an unknown pretrained tag, or no pretrained weights where they are wanted.
    """
    from .build import build_context_pooled

    return build_context_pooled(base, "context_pooled", pretrained=pretrained, **kwargs)


for _base in BASES:
    _register(_base)
