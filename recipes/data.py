"""Data sets and their splits: timm's own, and the bundled digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from timm.data import ImageDataset, create_dataset
from torch.utils.data import Dataset, IterableDataset

from cp_vision.errors import UserError

from .digits import SPLIT_SEED, Digits
from .schema import Recipe

__all__ = ["Split", "check_test_split", "count_classes", "hold_out", "open_split"]


class Split(Dataset):
    """Some of a data set's examples. Setting ``transform`` sets the data set's own, as timm's loaders do."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)

    @property
    def transform(self) -> Any:
        """The transform of the data set."""
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.dataset.transform = transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


def open_split(recipe: Recipe, split: str, is_training: bool) -> Any:
    """Open one split of the recipe's data set.

    Args:
        recipe: names the data set (``digits``, or anything timm's ``create_dataset`` knows).
        split: ``recipe.train_split`` or ``recipe.val_split``.
        is_training: whether it is to be trained on.

    Raises:
        UserError: a data folder that is missing or empty, a data set that is unknown or not there.
    """
    if recipe.dataset == "digits":
        return Digits(train=split == recipe.train_split)
    if not recipe.dataset or recipe.dataset.startswith("torch/"):
        _check_folder(recipe)
    try:
        return create_dataset(
            recipe.dataset,
            root=recipe.data_dir,
            split=split,
            is_training=is_training,
            class_map=recipe.class_map,
            download=recipe.dataset_download,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
        )
    except (
        AssertionError,
        FileNotFoundError,
        ImportError,
        KeyError,
        NotADirectoryError,
        RuntimeError,
        ValueError,
    ) as error:
        raise UserError(
            f"data set {recipe.dataset or 'folder'!r}, split {split!r} of {recipe.data_dir}: {_one_line(error)}"
        ) from error


def hold_out(recipe: Recipe, fraction: float) -> tuple[Split, Split]:
    """Split the training split in two: one part to train on, one to compare architectures on.

    Args:
        recipe: names the data set.
        fraction: share of each class that is held out, above 0 and below 1.

    Returns:
        The part to train on and the held-out part. Both are the same in every process.

    Raises:
        UserError: a data set that is streamed, or too small for the fraction.
    """
    if not 0 < fraction < 1:
        raise UserError(f"validation fraction {fraction} must be above 0 and below 1, for example 0.2")
    # Two objects, since the two parts have different transforms.
    train, held_out = (open_split(recipe, recipe.train_split, is_training=True) for _ in range(2))
    if isinstance(train, IterableDataset):
        raise UserError(f"data set {recipe.dataset!r} is streamed, so no part of it can be held out; use a folder")
    targets = _targets(train)
    try:
        chosen = train_test_split(np.arange(len(train)), test_size=fraction, random_state=SPLIT_SEED, stratify=targets)
    except ValueError as error:
        raise UserError(f"can't hold out {fraction} of {len(train)} images: {_one_line(error)}") from error
    return Split(train, sorted(chosen[0])), Split(held_out, sorted(chosen[1]))


def check_test_split(recipe: Recipe, train: Any, test: Any) -> None:
    """Raise a UserError where the test images are among the training images.

    timm takes the whole folder for every split that has no folder of its own.
    """
    train = train.dataset if isinstance(train, Split) else train
    if not (isinstance(train, ImageDataset) and isinstance(test, ImageDataset)):
        return
    if not set(train.filenames(absolute=True)).isdisjoint(test.filenames(absolute=True)):
        raise UserError(
            f"data folder {recipe.data_dir!r} has no separate splits; put the images into {recipe.train_split}/ "
            f"and {recipe.val_split}/, one folder per class in each"
        )


def count_classes(dataset: Any, recipe: Recipe) -> int:
    """Number of classes: the recipe's where it says so, otherwise the data set's.

    Raises:
        UserError: neither says, or the recipe says too few.
    """
    dataset = dataset.dataset if isinstance(dataset, Split) else dataset
    classes = getattr(dataset, "classes", None) or getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    if recipe.num_classes is None:
        if not classes:
            raise UserError(f"data set {recipe.dataset!r} doesn't say how many classes it has; set num_classes")
        return len(classes)
    if classes and len(classes) > recipe.num_classes:
        raise UserError(f"num_classes {recipe.num_classes} is less than the data set's {len(classes)} classes")
    return recipe.num_classes


def _check_folder(recipe: Recipe) -> None:
    if not recipe.data_dir:
        raise UserError(f"data set {recipe.dataset or 'folder'!r} needs --data-dir, the folder it lies in")
    root = Path(recipe.data_dir)
    if recipe.dataset_download:
        return
    if not root.exists():
        raise UserError(f"data folder {recipe.data_dir!r} doesn't exist; give the folder of the data set")
    if root.is_dir() and not any(root.iterdir()):
        raise UserError(f"data folder {recipe.data_dir!r} is empty; give a folder with one folder per class")


def _targets(dataset: Any) -> list[int] | None:
    if hasattr(dataset, "targets"):
        return [int(target) for target in dataset.targets]
    samples = getattr(getattr(dataset, "reader", None), "samples", None)
    return [int(target) for _, target in samples] if samples else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
