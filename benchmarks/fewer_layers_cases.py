"""The models of ``benchmarks/fewer_layers.py``: plain ones, pooled ones with fewer layers, rivals in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.layers import GlobalContext, HybridEmbed, SEModule
from timm.models import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn
from torch.nn import functional as F

from cp_vision import insert_pools
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.surgery.pool_hooks import PoolInput, attach_pools

__all__ = ["FAMILIES", "SEEDS", "Family", "Variant", "build"]

# Fewer say nothing: two trainings of one model differ by a few tenths of a point.
SEEDS = 3


class GatedAverage(nn.Module):
    """A 3 x 3 average pool behind the gate that a context pool has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.lerp(x, pooled, self.gate.to(x.dtype)[:, None, None])


def conv_stem(embed_dim: int, in_chans: int, **arguments: Any) -> HybridEmbed:
    """A stem of two strided convolutions, 7 x 7 tokens of images of 28 x 28 pixels.

    With patches cut out so small a model needs far more epochs (Xiao et al., 2021, arXiv 2106.14881).
    """
    stem = ConvStem(in_chans, 2, (8, embed_dim), kernel_size=3, stride=(2, 2), padding=1)
    return HybridEmbed(stem, in_chans=in_chans, embed_dim=embed_dim, proj=False, **arguments)


RIVALS: dict[str, Callable[[int], nn.Module]] = {"average": GatedAverage, "se": SEModule, "gc": GlobalContext}


@dataclass(frozen=True)
class Variant:
    """A model to train.

    Attributes:
        full: whether it has all layers, and not a third fewer.
        sites: where it pools.
        mode: how, or the name of a rival that stands there instead; ``before`` pools what the second convolution of a
            block sees.
        options: of the pools.
        epochs: how many times those of the others.
        most: with how many seeds it is trained at most: with one to choose between forms.
    """

    full: bool = False
    sites: tuple[str, ...] = ()
    mode: str = "gated"
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 1
    most: int = SEEDS


@dataclass(frozen=True)
class Family:
    """Models of one kind.

    Attributes:
        base: timm's name.
        size: side of the images in pixels.
        full: arguments of the full model.
        fewer: the same with a third fewer layers.
        settings: what the recipe says otherwise.
        variants: the models by name.
    """

    base: str
    size: int
    full: Mapping[str, Any]
    fewer: Mapping[str, Any]
    settings: tuple[str, ...]
    variants: Mapping[str, Variant]


_VIT = {
    "img_size": 28,
    "patch_size": 1,
    "embed_layer": conv_stem,
    "weight_init": "jax",
    "embed_dim": 32,
    "num_heads": 2,
    "mlp_ratio": 4,
}
_RESNET = {"channels": [16, 32, 64, 128], "stem_type": "deep", "stem_width": 4}
_RANGE = {"support_range": 0.25}
_EARLY = ("blocks.0",)
_SEEN = ("blocks.1",)
_STAGES = ("layer2.0", "layer3.0")
_STEM = ("maxpool",)
_DOWN = ("layer2.0.downsample", "layer3.0.downsample")


def _compared(
    form: str, pooled: tuple[str, ...], average: str, blocks: tuple[str, ...], longer: int
) -> dict[str, Variant]:
    """What a family's best form of pools is compared with: ablations, rivals in its place, and longer trainings.

    Args:
        form: the name of that form.
        pooled: where it pools.
        average: the name of its rival, an average of 3 x 3 tokens.
        blocks: where the rivals stand that come after blocks.
        longer: with how many seeds some are trained for twice as long.
    """
    return {
        f"{form}, equal weights": Variant(sites=pooled, options={**_RANGE, "learned_weight": False}),
        f"{form}, fixed support": Variant(sites=pooled, options={**_RANGE, "learned_support": False}),
        average: Variant(sites=pooled, mode="average"),
        "se": Variant(sites=blocks, mode="se"),
        "gc": Variant(sites=blocks, mode="gc"),
        "plain, twice as long": Variant(full=True, epochs=2, most=longer),
        "plain, fewer layers, twice as long": Variant(epochs=2, most=longer),
        f"{form}, twice as long": Variant(sites=pooled, options=_RANGE, epochs=2, most=longer),
    }


FAMILIES = {
    "vit": Family(
        "test_vit",
        28,
        {**_VIT, "depth": 6},
        {**_VIT, "depth": 4},
        # Whole images: with crops it learns for longer.
        ("epochs=6", "batch_size=64", "lr=0.003", "clip_grad=1.0", "scale=[1.0, 1.0]", "ratio=[1.0, 1.0]"),
        {
            "plain": Variant(full=True),
            "plain, fewer layers": Variant(),
            "gated": Variant(sites=_EARLY, options=_RANGE),
            "replace": Variant(sites=_EARLY, mode="replace", options=_RANGE),
            # What the attention of the next block sees, which is where the others' pools act.
            "pre_attn": Variant(sites=_SEEN, mode="pre_attn", options=_RANGE),
            **_compared("gated", _EARLY, "3x3 average, gated", _EARLY, 3),
        },
    ),
    "resnet": Family(
        "resnet18",
        48,
        # One block a stage of two in the middle, as from three blocks to two there was nothing to lose.
        {**_RESNET, "layers": [1, 2, 2, 1]},
        {**_RESNET, "layers": [1, 1, 1, 1]},
        ("epochs=8", "batch_size=64", "lr=0.004", "clip_grad=1.0", "channels_last=true"),
        {
            "plain": Variant(full=True),
            "plain, fewer layers": Variant(),
            "gated": Variant(sites=_STAGES, options=_RANGE),
            "replace": Variant(sites=_STAGES, mode="replace", options=_RANGE),
            "gated, wider": Variant(sites=_STAGES, options={"support_range": 0.5}, most=1),
            "gated, early": Variant(sites=("layer1.0",), options=_RANGE, most=1),
            "gated, late": Variant(sites=("layer3.0",), options=_RANGE, most=1),
            "before the convolution": Variant(sites=_STAGES, mode="before", options=_RANGE, most=1),
            "in place of down-samplings": Variant(sites=_DOWN, options=_RANGE, most=1),
            "in place of max pool and down-samplings": Variant(sites=_STEM + _DOWN, options=_RANGE, most=1),
            # Of these forms the best, with its first seed.
            "in place of the max pool": Variant(sites=_STEM, options=_RANGE),
            **_compared("in place of the max pool", _STEM, "3x3 average in place of the max pool", _STAGES, 2),
        },
    ),
}


def build(family: Family, variant: Variant) -> nn.Module:
    """A new model, (B, 1, size, size) -> (B, 10)."""
    model = timm.create_model(
        family.base, in_chans=1, num_classes=10, **(family.full if variant.full else family.fewer)
    )
    if isinstance(model, VisionTransformer):
        # With timm's 0.02 so small a model spends its first epochs on finding out where its patches are.
        nn.init.normal_(model.pos_embed, std=1.0)
    blocks = [block for block in list_blocks(model) if block.name in variant.sites]
    if variant.mode == "average" and variant.sites == _STEM:
        model.maxpool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    elif variant.mode in RIVALS:
        attach_pools(model, [(block, RIVALS[variant.mode](block.channels)) for block in blocks], False)
    elif variant.mode == "before":
        # The pool stands where it always does, after the block, until it is moved.
        insert_pools(model, variant.sites, **variant.options)
        for block in blocks:
            block.module._forward_hooks.clear()
            PoolInput(block.module).attach(block.module.conv2)
    elif variant.sites:
        insert_pools(model, variant.sites, mode=variant.mode, **variant.options)
    return model
