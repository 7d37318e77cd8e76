"""Training recipes: what a recipe may say, the data sets, the trainer, and ``cp-train``.

What a name of this module needs (torch, timm) is imported when it is first used.

Source: keys, and what they mean, are those of timm's ``train.py``; a recipe's header names the paper that it follows.
Going on after a stop, to the same weights, is our own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.evaluation_loader import ScoringLoader
    from .data.open import hold_out, open_splits
    from .data.training_loader import TrainingLoader
    from .evaluation.evaluate import evaluate
    from .evaluation.score_model import score_model
    from .models import build_model, load_model, save_model
    from .processes import Processes, joined_processes, single_process
    from .recipe.keys import Recipe, load_recipe
    from .run.training_run import Training
    from .training.dry_run import dry_run
    from .training.trainer import Trainer, TrainingError, train

_HOMES = {
    "Processes": "processes",
    "Recipe": "recipe.keys",
    "ScoringLoader": "data.evaluation_loader",
    "Trainer": "training.trainer",
    "Training": "run.training_run",
    "TrainingError": "training.trainer",
    "TrainingLoader": "data.training_loader",
    "build_model": "models",
    "dry_run": "training.dry_run",
    "evaluate": "evaluation.evaluate",
    "hold_out": "data.open",
    "joined_processes": "processes",
    "load_model": "models",
    "load_recipe": "recipe.keys",
    "open_splits": "data.open",
    "save_model": "models",
    "score_model": "evaluation.score_model",
    "single_process": "processes",
    "train": "training.trainer",
}

__all__ = [
    "Processes",
    "Recipe",
    "ScoringLoader",
    "Trainer",
    "Training",
    "TrainingError",
    "TrainingLoader",
    "build_model",
    "dry_run",
    "evaluate",
    "hold_out",
    "joined_processes",
    "load_model",
    "load_recipe",
    "open_splits",
    "save_model",
    "score_model",
    "single_process",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
