"""Scoring any model on a recipe's validation split: ``cp-train --eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line

from ..data import MAX_UNREADABLE
from ..data.evaluation_loader import ScoringLoader
from ..data.open import count_classes, open_split, open_splits
from ..models import build_model, data_config, load_model, model_args
from ..processes import Processes, single_process
from ..recipe.keys import Recipe
from .evaluate import evaluate
from .numbering import numbered_as

__all__ = ["score_model"]

# Endings of files of weights, which no timm name has.
_FILES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".tar")


def score_model(
    recipe: Recipe, what: str, processes: Processes | None = None, max_unreadable: int = MAX_UNREADABLE
) -> dict[str, Any]:
    """Score a model on the recipe's validation split.

    Args:
        recipe: names the data set.
        what: a ``local-dir:`` folder; a file of weights (.safetensors, .pth) of the recipe's model; or a timm
            name, with its own weights.
        processes: this process; None is one alone.
        max_unreadable: how many images may be unreadable; they are left out.

    Returns:
        ``top1`` and ``top5`` in percent, ``loss``, and ``unreadable``: a line on the images that were left out, or
        an empty one.

    Raises:
        UserError: no such model, other classes, a data set that can't be had, a model that doesn't run on it.
        CommandError: too many images can't be read.
    """
    processes = processes or single_process()
    path, by_name = Path(what.removeprefix("local-dir:")), False
    if path.is_file():
        dataset = _as_trained(recipe)
        args = model_args(recipe.model, recipe, count_classes(dataset, recipe), recipe.model_kwargs)
        model: Any = build_model(recipe.model, args, checkpoint=str(path))
    elif path.exists() or what.startswith("local-dir:"):
        if not (path / "config.json").is_file() and (path / "best" / "config.json").is_file():
            last = path / ("ema" if (path / "ema").exists() else "last")
            raise UserError(f"{what!r} is a training's folder; score {str(path / 'best')!r} or {str(last)!r}")
        model = load_model(path)
    elif path.suffix in _FILES:
        raise UserError(
            f"{what!r} is no file; name a .safetensors or .pth file of weights, a model folder or a timm name"
        )
    else:
        model, by_name = build_model(what, {"in_chans": recipe.in_chans}, pretrained=True), True
    if not path.is_file():
        labels = model.pretrained_cfg.get("label_names")
        dataset = numbered_as(labels, recipe, open_split(recipe, recipe.val_split), recipe.val_split)
    num_classes = count_classes(dataset, recipe)
    if model.num_classes != num_classes:
        raise UserError(f"{what!r} has {model.num_classes} classes, the data set has {num_classes}")
    config = data_config(model, recipe, use_test_size=by_name)
    loader = ScoringLoader(dataset, recipe, config, processes, max_unreadable)
    try:
        scores = evaluate(model, loader, processes, recipe)
    except (CommandError, UserError):
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(f"{what!r} doesn't run on this data: {one_line(error)}") from error
    if loader.unreadable is not None:
        loader.unreadable.table |= processes.any(loader.unreadable.table)
        return {**scores, "unreadable": str(loader.unreadable) if loader.unreadable.count else ""}
    return {**scores, "unreadable": ""}


def _as_trained(recipe: Recipe) -> Any:
    """The validation split for a file of weights, which names no classes: numbered as the training split, if any."""
    has_training = recipe.data_dir and (Path(recipe.data_dir) / recipe.train_split).is_dir()
    both = has_training and recipe.val_split != recipe.train_split
    return open_splits(recipe)[1] if both else open_split(recipe, recipe.val_split)
