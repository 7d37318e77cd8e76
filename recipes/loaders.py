"""Loaders: a data set with a recipe's batches and augmentation, by timm's ``create_loader``."""

from __future__ import annotations

import os
from typing import Any

import torch
from timm.data import FastCollateMixup, create_loader
from torch.utils.data import IterableDataset

from cp_vision.errors import UserError, one_line

from .schema import Recipe

__all__ = ["make_loader", "worker_count"]


def make_loader(
    dataset: Any,
    recipe: Recipe,
    data_config: dict[str, Any],
    num_classes: int,
    device: torch.device,
    is_training: bool,
) -> Any:
    """Make a loader by timm's ``create_loader``.

    Args:
        dataset: a data set of :func:`open_split` or :func:`hold_out`.
        recipe: batch size, augmentation, workers.
        data_config: of ``timm.data.resolve_data_config``.
        num_classes: number of classes.
        device: where batches go.
        is_training: shuffled and augmented, or in order and plain.

    Raises:
        UserError: fewer training images than one batch.
    """
    if is_training and not isinstance(dataset, IterableDataset) and len(dataset) < recipe.batch_size:
        raise UserError(f"batch_size {recipe.batch_size} is more than the {len(dataset)} training images; lower it")
    own = _training(recipe, num_classes) if is_training else _plain(recipe, data_config)
    try:
        return create_loader(
            dataset,
            input_size=data_config["input_size"],
            mean=data_config["mean"],
            std=data_config["std"],
            is_training=is_training,
            num_workers=worker_count(recipe),
            pin_memory=device.type == "cuda",
            device=device,
            **own,
        )
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # timm checks most of an augmentation's values where it makes the transforms.
        raise UserError(f"can't make the loader: {type(error).__name__}: {one_line(error)}") from error


def worker_count(recipe: Recipe) -> int:
    """Processes that load data: the recipe's, but no more than this process has cores."""
    return min(recipe.workers, len(os.sched_getaffinity(0)))


def _plain(recipe: Recipe, data_config: dict[str, Any]) -> dict[str, Any]:
    return {
        "batch_size": recipe.validation_batch_size or recipe.batch_size,
        "interpolation": data_config["interpolation"],
        "crop_pct": data_config["crop_pct"],
    }


def _training(recipe: Recipe, num_classes: int) -> dict[str, Any]:
    mixup = None
    if recipe.mixes:
        mixup = FastCollateMixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mixup_prob,
            switch_prob=recipe.mixup_switch_prob,
            mode=recipe.mixup_mode,
            label_smoothing=recipe.smoothing,
            num_classes=num_classes,
        )
    return {
        "batch_size": recipe.batch_size,
        "no_aug": recipe.no_aug,
        "re_prob": recipe.reprob,
        "re_mode": recipe.remode,
        "re_count": recipe.recount,
        "scale": recipe.scale,
        "ratio": recipe.ratio,
        "hflip": recipe.hflip,
        "vflip": recipe.vflip,
        "color_jitter": recipe.color_jitter,
        "auto_augment": recipe.aa,
        "interpolation": recipe.train_interpolation,
        "collate_fn": mixup,
    }
