"""What values of a recipe don't go together, or with timm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cp_vision.shared.errors import UserError, closest

if TYPE_CHECKING:
    from .keys import Recipe

__all__ = ["NOT_MODEL_KWARGS", "check_splits", "notice", "problems"]

# What the recipe has keys of its own for.
NOT_MODEL_KWARGS = {
    "num_classes": "num_classes",
    "in_chans": "in_chans",
    "pretrained": "pretrained",
    "drop_rate": "drop",
    "drop_path_rate": "drop_path",
}
# Data sets whose names have no prefix.
_PLAIN = ("", "digits", "folder", "image_folder")


def problems(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with a recipe whose single values are allowed: the keys that it lies in, and a text."""
    for key, length in (("scale", 2), ("ratio", 2), ("opt_betas", 2), ("mean", None), ("std", None)):
        value = getattr(recipe, key)
        if value is not None and len(value) != (length or recipe.in_chans):
            yield (key,), f"{key}: needs {length or recipe.in_chans} numbers, got {value!r}"
    for key in ("scale", "ratio"):
        low, high = getattr(recipe, key)
        if not 0 < low <= high or (key == "scale" and high > 1):
            yield (key,), f"{key}: needs 0 < low <= high{' <= 1' if key == 'scale' else ''}, got {[low, high]}"
    if recipe.mixes and recipe.batch_size % 2:
        keys = ("batch_size", "mixup", "cutmix")
        yield keys, f"batch_size: mixup and cutmix need an even one, got {recipe.batch_size}"
    for key, instead in NOT_MODEL_KWARGS.items():
        if key in recipe.model_kwargs:
            yield ("model_kwargs",), f"model_kwargs: set {instead} of the recipe in place of {key}"
    if "/" not in recipe.dataset and recipe.dataset not in _PLAIN:
        # timm would take it for a folder.
        text = f"dataset: no data set {recipe.dataset!r}{closest(recipe.dataset.lower(), _PLAIN)}"
        yield (
            ("dataset",),
            f"{text}; a folder of images needs --data-dir alone, others a prefix: torch/cifar10, hfds/...",
        )
    for key in ("data_dir", "class_map"):
        value = getattr(recipe, key)
        if recipe.dataset == "digits" and value is not None:
            yield (key,), f"data set 'digits' is bundled and takes no {key}, got {value!r}; name a dataset too"
    if recipe.drop_path_uniform and not recipe.drop_path:
        yield ("drop_path_uniform", "drop_path"), "drop_path_uniform: set the rate too, for example drop_path: 0.05"
    if recipe.torchcompile_mode is not None and recipe.torchcompile != "inductor":
        # Other compilers take no mode, and torch doesn't say so.
        text = f"torchcompile_mode {recipe.torchcompile_mode!r} is one of inductor's; set torchcompile: inductor"
        yield ("torchcompile_mode",), text
    # Takes seconds to import, and most mistakes are found without.
    from timm.optim import list_optimizers

    if recipe.opt.removeprefix("lookahead_") == "adahessian":
        yield ("opt",), "opt: adahessian needs second derivatives, which a training here doesn't make; take adamw"
    if recipe.opt.removeprefix("lookahead_") not in list_optimizers():
        yield ("opt",), f"opt: timm has no optimiser {recipe.opt!r}{closest(recipe.opt, list_optimizers())}"


def check_splits(recipe: Recipe) -> None:
    """Raise a UserError where a training would be scored on what it learns from; any split alone may be scored."""
    if recipe.train_split == recipe.val_split:
        raise UserError(f"train_split and val_split are both {recipe.train_split!r}; they must differ")


def notice(recipe: Recipe) -> str | None:
    """What may be meant, and most likely is not."""
    if recipe.sched != "none" and 0 < recipe.epochs <= recipe.warmup_epochs:
        return (
            f"warmup_epochs {recipe.warmup_epochs} takes all of epochs {recipe.epochs}, so the learning rate never "
            f"reaches lr {recipe.lr:g}; lower it with --set warmup_epochs=0"
        )
    return None
