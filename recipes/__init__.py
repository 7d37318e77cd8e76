"""Training recipes: what a recipe may say, the data sets, the trainer, and ``cp-train``."""

from .data import hold_out, open_splits
from .fit import Training, score_folder
from .loaders import make_loader
from .models import build_model, load_model, save_model
from .schema import Recipe, load_recipe
from .trainer import TrainingError, evaluate, train

__all__ = [
    "Recipe",
    "Training",
    "TrainingError",
    "build_model",
    "evaluate",
    "hold_out",
    "load_model",
    "load_recipe",
    "make_loader",
    "open_splits",
    "save_model",
    "score_folder",
    "train",
]
