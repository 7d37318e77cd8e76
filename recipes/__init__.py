"""Training recipes: what a recipe may say, the data sets, the trainer, and ``cp-train``.

Source: keys, and what they mean, are those of timm's ``train.py``; a recipe's header names the paper that it follows.
Going on after a stop, to the same weights, is our own.
"""

from .data import hold_out, open_splits
from .dry_run import dry_run
from .fit import Training
from .loaders import TrainingLoader
from .models import build_model, load_model, save_model
from .processes import Processes, joined_processes, single_process
from .schema import Recipe, load_recipe
from .score import score_model
from .scoring import evaluate
from .scoring_loader import ScoringLoader
from .trainer import Trainer, TrainingError, train

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
