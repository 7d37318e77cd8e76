"""A whole training from a recipe, and scoring a trained model: what ``cp-train`` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from timm.utils import random_seed

from cp_vision import count_macs
from cp_vision.command_line import CommandError
from cp_vision.errors import UserError, one_line
from cp_vision.files import check_path, make_folder

from .data import count_classes, open_split, open_splits, renumbered
from .loaders import make_loader
from .models import build_model, data_config, load_model, model_args, pick_device, save_model
from .schema import Recipe
from .trainer import TrainingError, evaluate, rehearse, train

__all__ = ["Training", "score_folder"]


class Training:
    """A training by a recipe that is set up and checked, with nothing written yet but the folder above its output.

    Args:
        recipe: the recipe.
        output: folder for the model (``local-dir:`` layout), ``recipe.yaml`` and ``summary.json``; must not
            hold anything.

    Raises:
        UserError: an output that is not empty, a model or data set that can't be had.
    """

    def __init__(self, recipe: Recipe, output: Path) -> None:
        self.output = output.absolute()
        check_path(self.output)
        if self.output == Path.cwd():
            raise UserError(f"output {str(output)!r} is the current folder; name a new one")
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise UserError(f"output {str(output)!r} is there and not empty; choose another --output")
        self.recipe, self.device = recipe, pick_device()
        train_set, test_set = open_splits(recipe)
        self.classes = getattr(train_set, "classes", None)
        num_classes = count_classes(train_set, recipe)
        args = model_args(recipe.model, recipe, num_classes, recipe.model_kwargs)
        trial = build_model(recipe.model, args, recipe.pretrained)
        self.config = data_config(trial, recipe)
        self.train_loader, self.test_loader = (
            make_loader(dataset, recipe, self.config, num_classes, self.device, is_training)
            for dataset, is_training in ((train_set, True), (test_set, False))
        )
        rehearse(trial, recipe, self.train_loader, self.test_loader, self.device)
        make_folder(self.output.parent)
        random_seed(recipe.seed)
        self.model = build_model(recipe.model, args, recipe.pretrained)

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
        files = {"recipe.yaml": self.recipe.to_yaml(), "summary.json": json.dumps(summary, indent=2) + "\n"}
        save_model(model, self.output, self.config, self.classes, files)
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
    # Numbered as it was trained: the folders of this split alone may lack a class.
    names = model.pretrained_cfg.get("label_names")
    classes = {name: int(index) for index, name in names.items()} if isinstance(names, dict) else None
    dataset = renumbered(recipe, open_split(recipe, recipe.val_split), classes, "the model")
    num_classes = count_classes(dataset, recipe)
    if model.num_classes != num_classes:
        raise UserError(f"{str(folder)!r} has {model.num_classes} classes, the data set has {num_classes}")
    device = pick_device()
    loader = make_loader(dataset, recipe, data_config(model, recipe), num_classes, device, is_training=False)
    try:
        return evaluate(model, loader, device)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(f"{str(folder)!r} doesn't run on this data: {one_line(error)}") from error
