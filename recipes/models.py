"""From a recipe to a timm model and back to disk as a ``local-dir:`` folder."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm import create_model
from timm.data import resolve_data_config
from timm.models import get_model_input_config, save_for_hf
from torch import nn

from cp_vision.models.build import STORED, check_base
from cp_vision.shared.errors import UserError, one_line
from cp_vision.shared.files import whole_folder
from cp_vision.shared.on_meta import on_meta

from .recipe.checks import NOT_MODEL_KWARGS
from .recipe.keys import Recipe
from .stored import StoredModel, read_stored
from .weights import classes_in, read_weights

__all__ = [
    "build_model",
    "data_config",
    "label_names",
    "load_model",
    "load_teacher",
    "model_args",
    "new_head",
    "save_model",
]


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
    with on_meta():
        model = build_model(name, args)
    # Models of a fixed grid (transformers) are built for the image size; ConvNets take any.
    if recipe.img_size is not None and hasattr(model, "set_input_size"):
        args.setdefault("img_size", recipe.img_size)
    return args


def build_model(
    name: str,
    args: Mapping[str, Any],
    pretrained: bool = False,
    checkpoint: str | None = None,
    new_head: bool = False,
) -> nn.Module:
    """Build a timm model.

    Args:
        name: timm name, ``local-dir:`` folder or ``hf-hub:`` repository.
        args: arguments of the model.
        pretrained: load the weights that belong to the name.
        checkpoint: weights to load in place of those: a .safetensors or .pth file, see :func:`read_weights`, or a
            ``local-dir:`` folder or ``hf-hub:`` repository, see :func:`read_stored`.
        new_head: give the model a new head where the file's is for another number of classes.

    Raises:
        UserError: an unknown name, arguments that the model doesn't take, weights that can't be had.
    """
    if not name.startswith(STORED):
        check_base(name)
    args = dict(args)
    if checkpoint is None:
        return _create(name, pretrained, args)
    args["pretrained_cfg_overlay"], architecture = _overlay(name, args, checkpoint, new_head)
    try:
        model: Any = _create(name, True, args)
    except UserError as error:
        holds = f"{checkpoint!r} holds {architecture}: " if architecture else f"with the weights of {checkpoint!r}: "
        raise UserError(f"{holds}{error}") from error
    # What is saved of a model says where its weights came from, and doesn't hold them.
    kept = {key: value for key, value in model.pretrained_cfg.items() if key != "state_dict"}
    model.pretrained_cfg = model.default_cfg = kept
    return model


def _create(name: str, pretrained: bool, args: Mapping[str, Any]) -> nn.Module:
    try:
        return create_model(name, pretrained=pretrained, **args)
    except UserError:
        raise
    except Exception as error:
        # Whatever arguments of the user's make timm raise.
        reason = f"{type(error).__name__}: {one_line(error)}"
        shown = {key: value for key, value in args.items() if key != "pretrained_cfg_overlay"}
        raise UserError(f"can't build {name} with {shown}, pretrained={pretrained}: {reason}") from error


def _overlay(name: str, args: Mapping[str, Any], checkpoint: str, new_head: bool) -> tuple[dict[str, Any], str]:
    """What makes timm load a file as it loads weights of its own, so that plain weights fit a model with pools.

    Beside it, of which model the weights are where they say so.

    Raises:
        UserError: the file can't be read, or is for other classes and there is to be no new head.
    """
    with on_meta():
        plain: Any = _create(name, False, args)
    if checkpoint.startswith(STORED):
        stored = read_stored(checkpoint)
    else:
        stored = StoredModel(read_weights(checkpoint, plain.state_dict()), "", {})
    classes = classes_in(stored.weights, plain.pretrained_cfg.get("classifier"))
    if classes is None:
        classes = plain.num_classes
    if classes != plain.num_classes and not new_head:
        raise UserError(f"checkpoint {checkpoint!r} tells {classes} classes apart, the model {plain.num_classes}")
    # Where the numbers differ timm leaves the head out.
    overlay = {"state_dict": stored.weights, "source": None, "file": None, "num_classes": classes, **stored.images}
    return overlay, stored.architecture


def new_head(name: str, args: Mapping[str, Any], checkpoint: str | None) -> str | None:
    """What is to be said where a file of weights is for other classes than a model; None where that is nothing."""
    if checkpoint is None:
        return None
    classes = _overlay(name, args, checkpoint, True)[0]["num_classes"]
    if classes == args["num_classes"]:
        return None
    return f"{checkpoint} is for {classes} classes, so the head for {args['num_classes']} begins untrained"


def load_teacher(recipe: Recipe, num_classes: int, pretrained: bool = True) -> nn.Module | None:
    """The model that a recipe distils from, or None.

    Args:
        recipe: names it.
        num_classes: number of classes that it must tell apart.
        pretrained: with its weights; without, any model of that name will do.

    Raises:
        UserError: it can't be had, or has other classes.
    """
    if recipe.kd_model_name is None:
        return None
    args: dict[str, Any] = {"in_chans": recipe.in_chans} | ({} if pretrained else {"num_classes": num_classes})
    teacher: Any = build_model(recipe.kd_model_name, args, pretrained).eval()
    if teacher.num_classes != num_classes:
        raise UserError(
            f"kd_model_name {recipe.kd_model_name!r} tells {teacher.num_classes} classes apart, the data set has "
            f"{num_classes}; name a model that was trained on this data set"
        )
    return teacher


def data_config(model: Any, recipe: Recipe, use_test_size: bool = False) -> dict[str, Any]:
    """Input size, mean, std, interpolation and crop: the recipe's where it says so, otherwise the model's.

    Args:
        model: a timm model.
        recipe: the recipe.
        use_test_size: of the model's own, take those for testing where they differ.
    """
    keys = ("img_size", "in_chans", "mean", "std", "interpolation", "crop_pct")
    args = {key: getattr(recipe, key) for key in keys if getattr(recipe, key) is not None}
    for key in ("mean", "std"):
        # Pretrained configurations are for three colours; other images take their average.
        own = model.pretrained_cfg.get(key)
        if key not in args and own is not None and len(own) != recipe.in_chans:
            args[key] = [sum(own) / len(own)] * recipe.in_chans
    if recipe.img_size is None:
        # timm takes what the weights were trained on, whatever the model was built for.
        built_for = get_model_input_config(model)
        larger = use_test_size and not built_for["fixed_input_size"] and model.pretrained_cfg.get("test_input_size")
        args["input_size"] = (recipe.in_chans, *(larger or built_for["input_size"])[1:])
    return resolve_data_config(args, model=model, use_test_size=use_test_size and recipe.img_size is None)


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
        config: its input size, mean, std, interpolation and crop, as of ``timm.data.resolve_data_config``.
        classes: class indices by name, which are saved as timm's ``label_names``; names of one index are joined.
        files: further text files by name.

    Raises:
        OSError: the folder can't be written.
        safetensors.SafetensorError: the weights can't be written.
        ValueError: pools with options that differ among them, which the arguments of a model can't say.
    """
    labels = {"label_names": label_names(classes)} if classes else {}
    if not all(parameter.is_contiguous() for parameter in model.parameters()):
        # Channels last is for computing; the file format takes no such strides.
        model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    with whole_folder(folder) as unfinished:
        save_for_hf(model, unfinished, labels, safe_serialization=True, data_config=config)
        # safetensors makes files that their owner alone can read.
        shutil.copymode(unfinished / "config.json", unfinished / "model.safetensors")
        for name, text in (files or {}).items():
            (unfinished / name).write_text(text, encoding="utf-8")


def label_names(classes: Mapping[str, int]) -> dict[str, str]:
    """Names by class index, as timm's configs have them: those of one class joined by a comma and a space."""
    names: dict[str, list[str]] = {}
    for name, index in classes.items():
        names.setdefault(str(index), []).append(str(name))
    return {index: ", ".join(own) for index, own in names.items()}
