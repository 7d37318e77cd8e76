"""From a recipe to a timm model and back to disk as a ``local-dir:`` folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm import create_model
from timm.data import resolve_data_config
from timm.models import save_for_hf
from torch import nn

from cp_vision.errors import UserError, one_line
from cp_vision.factory import check_base
from cp_vision.files import replace_folder

from .schema import NOT_MODEL_KWARGS, Recipe

__all__ = ["build_model", "data_config", "load_model", "model_args", "pick_device", "save_model"]


def model_args(name: str, recipe: Recipe, num_classes: int, model_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``timm.create_model`` for a model trained by a recipe.

    Args:
        name: timm name.
        recipe: image size, channels, dropout.
        num_classes: number of classes.
        model_kwargs: further arguments, which win.

    Raises:
        UserError: an unknown name, an argument that the model doesn't take.
    """
    args: dict[str, Any] = {"num_classes": num_classes}
    if recipe.in_chans != 3:
        args["in_chans"] = recipe.in_chans
    if recipe.drop:
        args["drop_rate"] = recipe.drop
    if recipe.drop_path is not None:
        args["drop_path_rate"] = recipe.drop_path
    for key, instead in NOT_MODEL_KWARGS.items():
        if key in model_kwargs:
            raise UserError(f"model argument {key} comes from the recipe and the data; set {instead} of the recipe")
    args.update(model_kwargs)
    with torch.device("meta"):
        model = build_model(name, args)
    # Models of a fixed grid (transformers) are built for the image size; ConvNets take any.
    if recipe.img_size is not None and hasattr(model, "set_input_size"):
        args.setdefault("img_size", recipe.img_size)
    return args


def build_model(name: str, args: Mapping[str, Any], pretrained: bool = False) -> nn.Module:
    """Build a timm model.

    Raises:
        UserError: an unknown name, arguments that the model doesn't take, weights that can't be had.
    """
    check_base(name)
    try:
        return create_model(name, pretrained=pretrained, **args)
    except UserError:
        raise
    except Exception as error:
        # Whatever arguments of the user's make timm raise.
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"can't build {name} with {dict(args)}, pretrained={pretrained}: {reason}") from error


def data_config(model: Any, recipe: Recipe) -> dict[str, Any]:
    """Input size, mean, std, interpolation and crop: the recipe's where it says so, otherwise the model's."""
    keys = ("img_size", "in_chans", "mean", "std", "interpolation", "crop_pct")
    args = {key: getattr(recipe, key) for key in keys if getattr(recipe, key) is not None}
    for key in ("mean", "std"):
        # Pretrained configurations are for three colours; other images take their average.
        own = model.pretrained_cfg.get(key)
        if key not in args and own is not None and len(own) != recipe.in_chans:
            args[key] = [sum(own) / len(own)] * recipe.in_chans
    return resolve_data_config(args, model=model)


def load_model(folder: Path | str) -> Any:
    """Load a ``local-dir:`` folder with its weights.

    Raises:
        UserError: not such a folder, or weights that don't fit.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{str(folder)!r} is no model folder: it has no config.json")
    try:
        return create_model(f"local-dir:{folder}", pretrained=True)
    except Exception as error:
        # The folder is the user's: its files may hold anything.
        raise UserError(f"can't load {str(folder)!r}: {type(error).__name__}: {one_line(error)}") from error


def save_model(
    model: nn.Module,
    folder: Path,
    config: dict[str, Any],
    classes: Mapping[str, int] | None = None,
    files: Mapping[str, str] | None = None,
) -> None:
    """Save a model as a ``local-dir:`` folder, whole or not at all; a folder of that name is replaced.

    Args:
        model: a model that ``timm.create_model`` built.
        folder: the folder.
        config: its :func:`data_config`.
        classes: class indices by name, which are saved as timm's ``label_names``.
        files: further text files by name.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    labels = {"label_names": {str(index): name for name, index in classes.items()}} if classes else {}
    save_for_hf(model, unfinished, labels, safe_serialization=True, data_config=config)
    # safetensors makes files that their owner alone can read.
    shutil.copymode(unfinished / "config.json", unfinished / "model.safetensors")
    for name, text in (files or {}).items():
        (unfinished / name).write_text(text, encoding="utf-8")
    replace_folder(unfinished, folder)


def pick_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
