"""The ``cp_*`` names in timm's registry: ContextPool models of timm's ResNets, ViTs and DeiTs."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from timm.models import DefaultCfg, get_arch_pretrained_cfgs, register_model, split_model_name_tag
from torch import nn

from .factory import build_context_pooled

__all__ = ["BASES", "context_pooled"]

BASES = (
    # ResNets
    "resnet10t",
    "resnet14t",
    "resnet18",
    "resnet18d",
    "resnet26",
    "resnet26d",
    "resnet34",
    "resnet34d",
    "resnet50",
    "resnet50d",
    "resnet101",
    "resnet101d",
    "resnet152",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "test_resnet",
    # Vision transformers
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_384",
    "vit_small_patch32_224",
    "vit_small_patch16_224",
    "vit_small_patch16_384",
    "vit_base_patch32_224",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "test_vit",
    "test_vit2",
    # DeiT and DeiT-III
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit3_small_patch16_224",
    "deit3_medium_patch16_224",
    "deit3_base_patch16_224",
)

# Read by timm's register_model: pretrained configurations by architecture.
default_cfgs: dict[str, DefaultCfg] = {}


def _register(base: str) -> None:
    """Register ``cp_<base>`` with the base's pretrained tags, weights and data configuration."""
    name = f"cp_{base}"

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_context_pooled(base, name, pretrained=pretrained, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = __name__
    entrypoint.__doc__ = f"{base} with ContextPool; pools=, drops= and pool_options= besides the base's arguments."
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
    """Any supported timm model with ContextPool: ``timm.create_model("context_pooled", base="resnet50")``."""
    return build_context_pooled(base, "context_pooled", pretrained=pretrained, **kwargs)


for _base in BASES:
    _register(_base)
