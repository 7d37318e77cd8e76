"""The rival of stand-ins: channels, heads and hidden units pruned by Torch-Pruning, to the same MACs.

The widths between blocks stay, so that what is pruned can be fitted and distilled to the base's features as stand-ins
are; in EfficientNets they may be pruned as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from cp_vision import count_macs
from cp_vision.anatomy.replacement import Replacement

__all__ = ["IMPORTANCES", "pruned", "read_outs"]

IMPORTANCES = ("magnitude", "taylor")
_STEPS = 12


def pruned(base: nn.Module, images: Tensor, limit: int, importance: str, inner: bool = True) -> list[nn.Module]:
    """The base with the least of its channels pruned that brings it within a budget.

    Args:
        base: of timm, in eval mode; left untouched.
        images: unlabelled, (N, C, H, W), normalised.
        limit: MACs of one image at most.
        importance: of ``IMPORTANCES``: norms of weights, or a first-order Taylor expansion of the loss of the base's
            own classes.
        inner: whether the widths between an EfficientNet's blocks stay.

    Returns:
        The model in eval mode, as it is and with BatchNorms recalibrated; nothing where even 95 % of channels are not
        enough.
    """
    low, high, found = 0.0, 0.95, None
    gradients = _gradients(base, images) if importance == "taylor" else {}
    for _ in range(_STEPS):
        ratio = (low + high) / 2
        model = _pruned(base, images[:1], ratio, importance, inner, gradients)
        if count_macs(model) <= limit:
            found, high = model, ratio
        else:
            low = ratio
    if found is None:
        return []
    recalibrated = copy.deepcopy(found)
    update_bn(images.split(32), recalibrated)
    return [found, recalibrated.eval()]


def read_outs(base: Any) -> list[str]:
    """Names of the layers that end what is pruned inside: halves of blocks, or blocks, from input to output."""
    ends = {id(part) for part in _between_blocks(base, True)} - {id(base.get_classifier())}
    inner = [(name, part) for name, part in base.named_modules() if name.startswith(("blocks.", "layer"))]
    return [name for name, part in inner if id(part) in ends and "downsample" not in name]


def _gradients(base: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Of the loss of the base's own classes, by name."""
    model = copy.deepcopy(base)
    for batch in images.split(32):
        with torch.no_grad():
            classes = base(batch).argmax(1)
        F.cross_entropy(model(batch), classes).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _pruned(
    base: nn.Module, image: Tensor, ratio: float, importance: str, inner: bool, gradients: dict[str, Tensor]
) -> nn.Module:
    import torch_pruning

    model: Any = copy.deepcopy(base)
    for name, gradient in gradients.items():
        model.get_parameter(name).grad = gradient.clone()
    attentions = [part for part in model.modules() if isinstance(part, Attention)]
    for attention in attentions:
        # Its graph can't be followed otherwise.
        attention.fused_attn = False
    measures: dict[str, Callable[[], Any]] = {
        "magnitude": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
        "taylor": torch_pruning.importance.GroupTaylorImportance,
    }
    pruner = torch_pruning.pruner.BasePruner(
        model,
        image,
        importance=measures[importance](),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=_between_blocks(model, inner),
        num_heads={attention.qkv: attention.num_heads for attention in attentions},
        # Of a head's dimensions, in all heads of a block alike: heads are pruned by a ratio of each block alone.
        prune_head_dims=True,
    )
    pruner.step()
    for attention in attentions:
        attention.attn_dim = attention.qkv.out_features // 3
        attention.head_dim = attention.attn_dim // attention.num_heads
    model.zero_grad(set_to_none=True)
    return model.eval()


def _between_blocks(model: Any, inner: bool) -> Sequence[nn.Module]:
    """Layers whose widths are those between blocks, and the classes: they stay."""
    kept: list[nn.Module] = [model.get_classifier()]
    if hasattr(model, "patch_embed"):
        kept += [part for part in model.patch_embed.modules() if isinstance(part, nn.Conv2d)]
        # Where a stand-in took a half's place, or the block's, nothing is pruned.
        for block in model.blocks:
            for half, name in (("attn", "proj"), ("mlp", "fc2")):
                if isinstance(last := getattr(getattr(block, half, None), name, None), nn.Linear):
                    kept.append(last)
        stand_ins = [part for part in model.modules() if isinstance(part, Replacement)]
        kept += [part for stand_in in stand_ins for part in stand_in.modules()]
    elif hasattr(model, "conv_head"):
        kept.append(model.conv_head)
        if inner:
            # The last convolution of each block.
            kept += [[part for part in block.modules() if isinstance(part, nn.Conv2d)][-1] for block in _blocks(model)]
    else:
        # Those that add to a stage's map.
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            for block in stage:
                kept.append(block.conv2 if getattr(block, "conv3", None) is None else block.conv3)
                kept += [part for part in getattr(block.downsample, "modules", tuple)() if isinstance(part, nn.Conv2d)]
    return kept


def _blocks(model: Any) -> list[nn.Module]:
    """An EfficientNet's."""
    return [block for stage in model.blocks for block in stage]
