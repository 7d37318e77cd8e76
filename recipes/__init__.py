"""Training recipes: what a recipe may say, the data sets, the trainer, and ``cp-train``.

Source: keys, and what they mean, are those of timm's ``train.py``; a recipe's header names the paper that it follows.
Going on after a stop, to the same weights, is our own.
"""

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
