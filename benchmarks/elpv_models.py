"""DINOv2's ViT-S/14 and EfficientNet-Lite0, fine-tuned to tell defective solar cells from others.

    python benchmarks/elpv_models.py --data-dir DIR

Trains those whose weights are missing in ``DIR``, ``elpv_dinov2.safetensors`` and ``elpv_lite0.safetensors``, and
prints the test accuracy of both. Less than ten minutes each on a core.
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
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.elpv import elpv_images, elpv_labels, elpv_split
from benchmarks.fashion_mnist import accuracy
from benchmarks.kept_weights import load_or_train, with_error
from benchmarks.package_files import INSTALL
from benchmarks.short_training import train
from benchmarks.trained_models import dinov2_vit_small, efficientnet_lite0
from cp_vision.recipes import Recipe
from cp_vision.shared.command_line import run_command
from cp_vision.shared.errors import UserError

__all__ = ["MODELS", "finetuned_on_elpv"]


@dataclass(frozen=True)
class Case:
    """A model and its fine-tuning.

    Attributes:
        pretrained: makes the model before.
        size: side of the images in pixels.
        settings: of the recipe, besides what both share.
    """

    pretrained: Callable[[], nn.Module]
    size: int
    settings: dict[str, Any]


MODELS = {
    # One pass, in which early blocks learn slowly and the new head fast.
    "elpv_dinov2": Case(lambda: dinov2_vit_small(112), 112, {"epochs": 1, "lr": 3e-4, "layer_decay": 0.7}),
    "elpv_lite0": Case(efficientnet_lite0, 160, {"epochs": 2, "lr": 5e-4, "channels_last": True}),
}


_SHARED: dict[str, Any] = {
    **{"opt": "adamw", "weight_decay": 0.05, "clip_grad": 1.0, "batch_size": 16},
    **{"sched": "cosine", "sched_on_updates": True, "scale": (0.8, 1.0), "ratio": (0.9, 1.1)},
}


def finetuned_on_elpv(name: str, data_dir: Path) -> nn.Module:
    """A model that tells defective solar cells (class 1) from others, in eval mode; trained where its file is missing.

    Args:
        name: of ``MODELS``.
        data_dir: the folder of its weights, ``NAME.safetensors``.

    Returns:
        The model, (B, 3, size, size) -> (B, 2); images as of ``elpv_images``, normalised by its ``pretrained_cfg``. It
        saw the first part of ``elpv_split(0)`` alone.

    Raises:
        UserError: an unknown name, a missing package, weights of another model.
    """
    if name not in MODELS:
        raise UserError(f"no model {name!r} is fine-tuned on ELPV; choose one of {', '.join(MODELS)}")
    case = MODELS[name]
    model: Any = case.pretrained()
    torch.manual_seed(0)
    model.reset_classifier(2)

    def finetune(model: Any) -> None:
        part = elpv_split()[0]
        images = elpv_images(case.size, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
        recipe = Recipe(**_SHARED, **case.settings)
        train(name, model, images[part], elpv_labels()[part], case.size, recipe)

    return load_or_train(model, data_dir / f"{name}.safetensors", finetune)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and print the accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=INSTALL, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--only", choices=MODELS, help="this model alone")
    arguments = parser.parse_args(argv)
    for name, case in MODELS.items():
        if arguments.only not in (None, name):
            continue
        model: Any = finetuned_on_elpv(name, arguments.data_dir)
        part = elpv_split()[2]
        images = elpv_images(case.size, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])[part]
        right = accuracy(model, images, elpv_labels()[part], case.size)
        print(f"{name}: {with_error(right, len(part))} of {len(part)} test images", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main, None, "elpv_models"))
