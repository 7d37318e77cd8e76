"""A ViT and two ResNets that are trained on Fashion-MNIST in minutes, for benchmarks that start from trained models.

    python benchmarks/fashion_models.py --data-dir DIR

Trains those whose weights are missing in ``DIR``, such as ``fashion_vit.safetensors``, and prints the test accuracy of
all. Three to five minutes of a core each.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import HybridEmbed, PatchDropout
from timm.models import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn

from benchmarks.fashion_mnist import accuracy, fill, open_split
from benchmarks.kept_weights import load_or_train, with_error
from benchmarks.short_training import train
from cp_vision.recipes import Recipe
from cp_vision.shared.command_line import run_command
from cp_vision.shared.errors import UserError

__all__ = ["MODELS", "SIZE", "train_on_fashion", "trained_on_fashion"]

SIZE = 28


def _vit() -> nn.Module:
    """Six blocks over a class token and 7 x 7 patches."""
    model = VisionTransformer(
        img_size=SIZE,
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


MODELS: dict[str, Callable[[], nn.Module]] = {
    "fashion_resnet": _resnet,
    "fashion_bottlenecks": partial(_resnet, "resnet50"),
    "fashion_vit": _vit,
}
_UPDATES = 100
# Whole images: with crops a model learns for longer.
_SHARED: dict[str, Any] = {
    **{"opt": "adamw", "weight_decay": 0.05, "clip_grad": 1.0, "batch_size": 64, "smoothing": 0.1},
    **{"warmup_epochs": 1, "sched": "cosine", "sched_on_updates": True},
    **{"in_chans": 1, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)},
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "fashion_resnet": {"epochs": 12, "lr": 0.004, "channels_last": True},
    "fashion_bottlenecks": {"epochs": 12, "lr": 0.004, "channels_last": True},
    "fashion_vit": {"epochs": 16, "lr": 0.003},
}


def trained_on_fashion(name: str, data_dir: Path) -> nn.Module:
    """A model of Fashion-MNIST's classes in eval mode; trained where its file is missing.

    Args:
        name: of ``MODELS``.
        data_dir: the folder of its weights, ``NAME.safetensors``, and of the images.

    Returns:
        The model, (B, 1, 28, 28) -> (B, 10); images as of ``fashion_mnist.open_split``.

    Raises:
        UserError: an unknown name, weights of another model.
    """
    if name not in MODELS:
        raise UserError(f"no model {name!r} is trained on Fashion-MNIST; choose one of {', '.join(MODELS)}")
    torch.manual_seed(0)
    return load_or_train(MODELS[name](), data_dir / f"{name}.safetensors", lambda model: _train(name, model, data_dir))


def train_on_fashion(name: str, model: nn.Module, data_dir: Path, share: float = 1.0) -> None:
    """Train a model in place by the recipe of one of ``MODELS``, in a share of its epochs."""
    fill(data_dir)
    settings = {**_SETTINGS[name], "epochs": max(1, round(share * _SETTINGS[name]["epochs"]))}
    train(name, model, *open_split(data_dir, True), SIZE, Recipe(**_SHARED, **settings), _UPDATES)


def _train(name: str, model: Any, data_dir: Path) -> None:
    if isinstance(model, VisionTransformer):
        # Half of the patches an update, in half the time (Liu et al., 2022, arXiv 2208.07220).
        model.patch_drop = PatchDropout(0.5)
    train_on_fashion(name, model, data_dir)
    if isinstance(model, VisionTransformer):
        model.patch_drop = nn.Identity()


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    data_dir = parser.parse_args(argv).data_dir
    for name in MODELS:
        model = trained_on_fashion(name, data_dir)
        fill(data_dir)
        images, targets = open_split(data_dir, False)
        right = accuracy(model, images, targets, SIZE)
        print(f"{name}: {with_error(right, len(images))} of {len(images)} test images", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main, None, "fashion_models"))
