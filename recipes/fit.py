"""A whole training from a recipe, and scoring a trained model: what ``cp-train`` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from timm.utils import random_seed

from cp_vision import count_macs
from cp_vision.command_line import CommandError
from cp_vision.errors import UserError

from .data import check_test_split, count_classes, open_split
from .loaders import make_loader
from .models import build_model, data_config, load_model, model_args, save_model
from .schema import Recipe
from .trainer import TrainingError, evaluate, train

__all__ = ["Training", "score_folder"]


class Training:
    """A training by a recipe that is set up and checked, with nothing written yet.

    Args:
        recipe: the recipe.
        output: folder for the model (``local-dir:`` layout), ``recipe.yaml`` and ``summary.json``; must not
            hold anything.

    Raises:
        UserError: an output that is not empty, a model or data set that can't be had.
    """

    def __init__(self, recipe: Recipe, output: Path) -> None:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"output {str(output)!r} is there and not empty; choose another --output")
        self.recipe, self.output, self.device = recipe, output, _device()
        train_set = open_split(recipe, recipe.train_split, is_training=True)
        test_set = open_split(recipe, recipe.val_split, is_training=False)
        check_test_split(recipe, train_set, test_set)
        num_classes = count_classes(train_set, recipe)
        args = model_args(recipe.model, recipe, num_classes, recipe.model_kwargs)
        random_seed(recipe.seed)
        self.model = build_model(recipe.model, args, recipe.pretrained)
        self.config = data_config(self.model, recipe)
        self.train_loader, self.test_loader = (
            make_loader(dataset, recipe, self.config, num_classes, self.device, is_training)
            for dataset, is_training in ((train_set, True), (test_set, False))
        )

    def run(self, on_epoch: Callable[[int, int, float], None] | None = None) -> dict[str, float]:
        """Train on the whole training split, score once on the validation split, and write the output.

        Args:
            on_epoch: see :func:`cp_vision.recipes.train`.

        Returns:
            ``top1`` and ``top5`` in percent, ``loss``, ``macs`` and ``params``.

        Raises:
            CommandError: training broke off.
        """
        try:
            model = train(self.model, self.recipe, self.train_loader, self.device, on_epoch)
        except TrainingError as error:
            raise CommandError(str(error)) from error
        summary = {
            **evaluate(model, self.test_loader, self.device),
            "macs": count_macs(model, self.config["input_size"]),
            "params": sum(parameter.numel() for parameter in model.parameters()),
        }
        self.output.parent.mkdir(parents=True, exist_ok=True)
        files = {"recipe.yaml": self.recipe.to_yaml(), "summary.json": json.dumps(summary, indent=2) + "\n"}
        save_model(model, self.output, self.config, files)
        return summary


def score_folder(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Score a ``local-dir:`` folder on the recipe's validation split.

    Args:
        recipe: names the data set.
        folder: the folder.

    Returns:
        ``top1`` and ``top5`` in percent, and ``loss``.

    Raises:
        UserError: a folder that holds no such model, a data set that can't be had.
    """
    model = load_model(folder)
    dataset = open_split(recipe, recipe.val_split, is_training=False)
    num_classes = count_classes(dataset, recipe)
    if model.num_classes != num_classes:
        raise UserError(f"{str(folder)!r} has {model.num_classes} classes, the data set has {num_classes}")
    device = _device()
    loader = make_loader(dataset, recipe, data_config(model, recipe), num_classes, device, is_training=False)
    return evaluate(model, loader, device)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
