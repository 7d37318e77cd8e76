"""Models that are trained on Fashion-MNIST in minutes, for benchmarks that start from trained models.

    python benchmarks/fashion_models.py --data-dir DIR

A ViT, two ResNets and a ConvNeXt from scratch, and DINOv2's ViT-S/14 fine-tuned (packages of the ``bench`` extra).
Trains those whose weights are missing in ``DIR``, such as ``fashion_vit.safetensors``, and prints the test accuracy of
all; ``--only`` is for one of them. Three to ten minutes of a core each.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import HybridEmbed, PatchDropout
from timm.models import VisionTransformer, adapt_input_conv
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn

from benchmarks.fashion_mnist import accuracy, fill, open_split
from benchmarks.kept_weights import load_or_train, with_error
from benchmarks.package_files import INSTALL
from benchmarks.short_training import train
from benchmarks.trained_models import dinov2_vit_small
from cp_vision.recipes import Recipe
from cp_vision.shared.command_line import run_command
from cp_vision.shared.errors import UserError

__all__ = ["MODELS", "train_on_fashion", "trained_on_fashion"]

_SIZE = 28


@dataclass(frozen=True)
class Case:
    """A model and its training.

    Attributes:
        build: makes the model before.
        settings: of the recipe, besides what all share.
        size: side of the images in pixels.
        updates: in an epoch.
    """

    build: Callable[[], nn.Module]
    settings: dict[str, Any]
    size: int = _SIZE
    updates: int = 100


def _vit() -> nn.Module:
    """Six blocks over a class token and 7 x 7 patches."""
    model = VisionTransformer(
        img_size=_SIZE,
        patch_size=1,
        embed_layer=_stem,
        in_chans=1,
        num_classes=10,
        embed_dim=64,
        depth=6,
        num_heads=2,
        weight_init="jax",
    )
    # With timm's 0.02 so small a model spends its first epochs on finding out where its patches are.
    nn.init.normal_(model.pos_embed, std=1.0)
    return model


def _stem(embed_dim: int, in_chans: int, **arguments: Any) -> HybridEmbed:
    """Patches of 4 x 4 pixels by three convolutions: cut out, they would need many more epochs."""
    stem = ConvStem(in_chans, 3, (16, 32, embed_dim), kernel_size=3, stride=(2, 1, 2), padding=1)
    return HybridEmbed(stem, in_chans=in_chans, embed_dim=embed_dim, proj=False, **arguments)


def _resnet(name: str = "resnet18") -> nn.Module:
    """Three stages of three blocks at 14, 7 and 4 pixels, in the first all of one shape, and a block at 2."""
    arguments = {"stem_type": "deep", "stem_width": 8, "layers": [3, 3, 3, 1], "channels": [16, 32, 64, 128]}
    model: Any = timm.create_model(name, in_chans=1, num_classes=10, **arguments)
    model.maxpool = nn.Identity()
    return model


def _convnext() -> nn.Module:
    """Stages of two, two, three and one block at 28, 14, 7 and 3 pixels."""
    arguments = {"patch_size": 1, "depths": (2, 2, 3, 1), "dims": (24, 48, 96, 128), "kernel_sizes": 5}
    return timm.create_model("convnext_atto", in_chans=1, num_classes=10, **arguments)


def _dinov2() -> nn.Module:
    """Twelve blocks over a class token and 5 x 5 patches of grey images."""
    weights, patches = dinov2_vit_small(70).state_dict(), "patch_embed.proj.weight"
    weights[patches] = adapt_input_conv(1, weights[patches])
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=10, img_size=70, in_chans=1)
    model.load_state_dict({**model.state_dict(), **weights})
    return model


MODELS = {
    "fashion_resnet": Case(_resnet, {"epochs": 12, "lr": 0.004, "channels_last": True}),
    "fashion_bottlenecks": Case(partial(_resnet, "resnet50"), {"epochs": 12, "lr": 0.004, "channels_last": True}),
    "fashion_vit": Case(_vit, {"epochs": 16, "lr": 0.003}),
    "fashion_convnext": Case(_convnext, {"epochs": 12, "lr": 0.004, "channels_last": True}),
    # One pass over few images, in which early blocks learn slowly and the new head fast.
    "fashion_dinov2": Case(_dinov2, {"epochs": 1, "warmup_epochs": 0, "lr": 3e-4, "layer_decay": 0.7}, 70, 250),
}
# Whole images: with crops a model learns for longer.
_SHARED: dict[str, Any] = {
    **{"opt": "adamw", "weight_decay": 0.05, "clip_grad": 1.0, "batch_size": 64, "smoothing": 0.1},
    **{"warmup_epochs": 1, "sched": "cosine", "sched_on_updates": True},
    **{"in_chans": 1, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)},
}


def trained_on_fashion(name: str, data_dir: Path) -> nn.Module:
    """A model of Fashion-MNIST's classes in eval mode; trained where its file is missing.

    Args:
        name: of ``MODELS``.
        data_dir: the folder of its weights, ``NAME.safetensors``, and of the images.

    Returns:
        The model, (B, 1, size, size) -> (B, 10); images as of ``fashion_mnist.open_split``, resized.

    Raises:
        UserError: an unknown name, a missing package, weights of another model.
    """
    if name not in MODELS:
        raise UserError(f"no model {name!r} is trained on Fashion-MNIST; choose one of {', '.join(MODELS)}")
    torch.manual_seed(0)
    model = MODELS[name].build()
    return load_or_train(model, data_dir / f"{name}.safetensors", lambda model: _train(name, model, data_dir))


def train_on_fashion(name: str, model: nn.Module, data_dir: Path, share: float = 1.0) -> None:
    """Train a model in place by the recipe of one of ``MODELS``, in a share of its epochs."""
    fill(data_dir)
    case = MODELS[name]
    settings = {**_SHARED, **case.settings, "epochs": max(1, round(share * case.settings["epochs"]))}
    train(name, model, *open_split(data_dir, True), case.size, Recipe(**settings), case.updates)


def _train(name: str, model: Any, data_dir: Path) -> None:
    if name == "fashion_vit":
        # Half of the patches an update, in half the time (Liu et al., 2022, arXiv 2208.07220).
        model.patch_drop = PatchDropout(0.5)
    train_on_fashion(name, model, data_dir)
    if name == "fashion_vit":
        model.patch_drop = nn.Identity()


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and print the accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=INSTALL, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--only", choices=MODELS, help="this model alone")
    arguments = parser.parse_args(argv)
    for name in MODELS if arguments.only is None else [arguments.only]:
        model = trained_on_fashion(name, arguments.data_dir)
        fill(arguments.data_dir)
        images, targets = open_split(arguments.data_dir, False)
        right = accuracy(model, images, targets, MODELS[name].size)
        print(f"{name}: {with_error(right, len(images))} of {len(images)} test images", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main, None, "fashion_models"))
