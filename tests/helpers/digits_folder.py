"""Small trainings for tests: real digits as a folder of images, settings of recipes that take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from cp_vision.recipes import Processes, ScoringLoader, TrainingLoader, load_recipe
from cp_vision.recipes.data.open import open_split
from cp_vision.recipes.models import build_model, data_config, model_args

CPU = Processes(torch.device("cpu"))
# Of the recipe digits: 22 updates an epoch.
SMALL = ["model=cp_test_vit2", "model_kwargs={patch_size: 16, depth: 2, init_values: 1.0}", "epochs=3"]
# Of the recipe default with a folder of sixty images: 3 updates an epoch.
FOLDER = ["model=cp_test_vit", "model_kwargs={depth: 2}", "img_size=32", "batch_size=16", "epochs=6", "opt=muon"]
FOLDER += ["lr=0.02", "workers=0"]


def sets(settings):
    """Settings as arguments of a command."""
    return [part for text in settings for part in ("--set", text)]


def write_folder(root: Path) -> Path:
    """Ninety real digits of three classes as PNG files: sixty in train/, thirty in val/."""
    digits = load_digits(n_class=3)
    for i in range(90):
        folder = root / ("train" if i < 60 else "val") / str(digits.target[i])
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((digits.images[i] * 15).astype(np.uint8))
        image.resize((32, 32)).save(folder / f"{i}.png")
    return root


def digits(*settings):
    """The recipe digits with a small model."""
    return load_recipe("digits", [*SMALL, *settings])


def parts(recipe, processes=CPU, images=1437) -> tuple[Any, TrainingLoader, ScoringLoader]:
    """A fresh model, the training loader of so many images, and the scoring loader."""
    torch.manual_seed(0)
    model = build_model(recipe.model, model_args(recipe.model, recipe, 10, recipe.model_kwargs))
    config = data_config(model, recipe)
    loader = TrainingLoader(open_split(recipe, "train").part(range(images)), recipe, config, 10, processes)
    return model, loader, ScoringLoader(open_split(recipe, "validation"), recipe, config, processes)
