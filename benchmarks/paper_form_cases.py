"""The models of ``benchmarks/paper_form.py``: pools where the paper has them, plain models, rivals in their place."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import timm
import torch
from timm.models import VisionTransformer
from torch import nn

from cp_vision import ContextPool2d, count_macs, find_sites, insert_pools
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.surgery.pool_hooks import attach_pools

__all__ = ["FAMILIES", "LONG", "PLAIN", "POOLS", "Family", "Form", "build"]

PLAIN, POOLS, LONG = "plain", "pools", ", twice as long"


@dataclass(frozen=True)
class Form:
    """A model to train.

    Attributes:
        pool: what stands in the pools' places: nothing, a context pool, or a depthwise convolution of 3 x 3 pixels.
        mode: ``replace`` pools what a block gives, ``pre_attn`` what its attention sees; of transformers alone.
        options: of the context pools.
        wider: whether the plain model is widened until it costs what the pools cost.
        layers: what is changed in the arguments of a deeper plain model.
        epochs: how many times those of the others.
    """

    pool: Literal["", "context", "depthwise"] = ""
    mode: str = "replace"
    options: Mapping[str, Any] = field(default_factory=dict)
    wider: bool = False
    layers: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 1


@dataclass(frozen=True)
class Family:
    """Models of one kind on one set of images.

    Attributes:
        data: ``fashion`` or ``elpv``.
        train: how many images are trained on; of Fashion-MNIST each seed draws its own.
        size: side of the images in pixels.
        base: timm's name.
        arguments: of the plain model.
        settings: what the recipe ``fashion_mnist`` says otherwise.
        forms: the models by name.
    """

    data: Literal["fashion", "elpv"]
    train: int
    size: int
    base: str
    arguments: Mapping[str, Any]
    settings: tuple[str, ...]
    forms: Mapping[str, Form]

    @property
    def classes(self) -> int:
        """Ten kinds of clothes; cells with a defect or without."""
        return 10 if self.data == "fashion" else 2


def _forms(deeper: Mapping[str, Any], **more: Form) -> dict[str, Form]:
    """What every family compares; in the order in which a seed trains them."""
    return {
        POOLS: Form("context"),
        PLAIN: Form(),
        "depthwise 3x3": Form("depthwise"),
        "plain, wider": Form(wider=True),
        "pools, equal weights": Form("context", options={"learned_weight": False}),
        "pools, fixed support": Form("context", options={"learned_support": False}),
        "plain, deeper": Form(layers=deeper),
        **more,
        POOLS + LONG: Form("context", epochs=2),
        PLAIN + LONG: Form(epochs=2),
    }


_WHOLE = ("scale=[1.0, 1.0]", "ratio=[1.0, 1.0]", "batch_size=32", "lr=0.003")
_BEFORE = {"pools before attention": Form("context", "pre_attn")}


def _vit(data: Literal["fashion", "elpv"], train: int, epochs: int, size: int, patch: int, depth: int) -> Family:
    arguments = {
        **{"img_size": size, "patch_size": patch, "depth": depth, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 4},
        **{"class_token": False, "global_pool": "avg", "weight_init": "jax"},
    }
    forms = _forms({"depth": depth * 3 // 2}, **_BEFORE)
    return Family(data, train, size, "test_vit", arguments, (*_WHOLE, f"epochs={epochs}"), forms)


def _resnet(data: Literal["fashion", "elpv"], train: int, epochs: int, size: int) -> Family:
    arguments = {
        **{"channels": (16, 32, 64, 128), "layers": (1, 1, 1, 1)},
        **{"stem_type": "deep", "stem_width": 4, "avg_down": True},
    }
    forms = _forms({"layers": (1, 2, 2, 1)})
    return Family(data, train, size, "resnet18", arguments, (*_WHOLE, f"epochs={epochs}"), forms)


FAMILIES = {
    "vit-4": _vit("fashion", 2000, 24, 28, 4, 4),
    "resnet": _resnet("fashion", 2000, 24, 32),
    "vit-8": _vit("fashion", 2000, 24, 28, 4, 8),
    "elpv-vit-4": _vit("elpv", 1968, 24, 64, 8, 4),
    "elpv-resnet": _resnet("elpv", 1968, 24, 64),
    "vit-12": _vit("fashion", 2000, 24, 28, 4, 12),
    "vit-4-patch-2": _vit("fashion", 2000, 24, 28, 2, 4),
}


def build(family: Family, form: Form) -> nn.Module:
    """A new model, (B, 1, size, size) -> (B, classes)."""
    if form.wider:
        return _plain(family, _wider(family))
    model = _plain(family, form.layers)
    if not form.pool:
        return model
    sites = find_sites(model, (1, family.size, family.size))
    if isinstance(model, VisionTransformer):
        # After the last block no attention follows.
        after = [site.name for site in sites[:-1]]
        if form.mode == "pre_attn":
            insert_pools(model, [site.name for site in sites], mode=form.mode, **form.options)
        elif form.pool == "context":
            insert_pools(model, after, mode=form.mode, **form.options)
        else:
            blocks = [block for block in list_blocks(model) if block.name in after]
            attach_pools(model, [(block, _depthwise(block.channels, 1, sites[0].grid[0]), False) for block in blocks])
        return model
    for site in sites:
        if site.kind != "block":
            # A shortcut of resnet-D begins with its average pool.
            name = site.name if site.kind == "stem" else f"{site.name}.0"
            if form.pool == "context":
                pool: nn.Module = ContextPool2d(site.channels, 2, mode="replace", **form.options)
            else:
                pool = _depthwise(site.channels, 2, site.grid[0])
            model.set_submodule(name, pool)
    return model


def _plain(family: Family, changed: Mapping[str, Any]) -> nn.Module:
    arguments = {**family.arguments, **changed}
    model = timm.create_model(family.base, in_chans=1, num_classes=family.classes, **arguments)
    if isinstance(model, VisionTransformer):
        # With timm's 0.02 so small a model spends its first epochs on finding out where its patches are.
        nn.init.normal_(model.pos_embed, std=0.5)
    return model


def _wider(family: Family) -> dict[str, Any]:
    """What makes the plain model the smallest that costs at least what the pools do: a wider MLP, or wider stages."""
    image = (1, family.size, family.size)
    least = count_macs(build(family, Form("context")), image)

    def arguments(more: int) -> dict[str, Any]:
        if "mlp_ratio" in family.arguments:
            return {"mlp_ratio": 4 + more / 32}
        return {"channels": tuple(channels * (64 + more) // 64 for channels in family.arguments["channels"])}

    return arguments(bisect_left(range(65), least, key=lambda more: count_macs(_plain(family, arguments(more)), image)))


def _depthwise(channels: int, stride: int, side: int) -> nn.Conv2d:
    """Starts as a new pool of a map of this side: as the Gaussian of its support, cut off after a pixel."""
    convolution = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    row = torch.tensor([-1.0, 0.0, 1.0]).square().div(-2 * (0.1 + 0.05 * side) ** 2).softmax(0)
    nn.init.zeros_(convolution.weight)
    convolution.weight.data += row[:, None] * row
    return convolution
