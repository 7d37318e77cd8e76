"""Data sets and their splits: timm's own, and the bundled digits."""

from __future__ import annotations

import contextlib
import pickle
import sys
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from timm.data import ImageDataset, add_img_extensions, create_dataset, get_img_extensions, set_img_extensions
from torch.utils.data import IterableDataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from cp_vision.shared.errors import UserError, listed, one_line

from ..recipe.checks import check_splits
from ..recipe.keys import Recipe
from .digits import SPLIT_SEED, Digits
from .folders import FolderReader, split_folder
from .images import Images

__all__ = ["count_classes", "fingerprint_of", "found_in", "hold_out", "open_split", "open_splits", "renumbered"]

# Data sets that timm reads from somewhere other than a folder that must be there.
_ELSEWHERE = ("hfds", "hfids", "tfds", "wds")


# What timm's readers raise for data sets that are not there, damaged, or of another kind.
_DAMAGED = (EOFError, pickle.UnpicklingError, tarfile.TarError)
_UNOPENED = (AssertionError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError, *_DAMAGED)


def open_split(recipe: Recipe, split: str, class_map: Mapping[str, int] | None = None) -> Any:
    """Open one split of the recipe's data set.

    Args:
        recipe: names the data set (``digits``, or anything timm's ``create_dataset`` knows).
        split: ``recipe.train_split`` or ``recipe.val_split``.
        class_map: class indices by name, for folders; None takes the recipe's or numbers the folders.

    Returns:
        :class:`Images`, or timm's iterable data set for data that is streamed.

    Raises:
        UserError: a data folder that is missing or empty, a data set that is unknown or not there.
    """
    mode = "L" if recipe.in_chans == 1 else "RGB"
    is_training = split == recipe.train_split
    if recipe.class_map is not None and recipe.dataset.startswith("torch/"):
        raise UserError(f"class_map {recipe.class_map!r}: torchvision's data sets number their classes themselves")
    if recipe.dataset == "digits":
        return Images(Digits(train=is_training), mode)
    if recipe.dataset.partition("/")[0].lower() not in _ELSEWHERE:
        _check_folder(recipe)
    try:
        place = split_folder(Path(recipe.data_dir or "."), split)
        if "/" not in recipe.dataset and place.is_dir():
            if recipe.input_key or recipe.target_key:
                raise UserError("input_key and target_key name columns of hfds/ and wds/ data sets; folders have none")
            reader = FolderReader(place, split, class_map or recipe.class_map)
            return Images(ImageDataset(str(place), reader=reader, input_img_mode=mode), mode)
        with _more_kinds_of_images():
            dataset = create_dataset(
                recipe.dataset,
                root=recipe.data_dir,
                split=split,
                # What is scored alone is read in order, and once.
                is_training=is_training and recipe.val_split != split,
                class_map=class_map or recipe.class_map,
                download=recipe.dataset_download,
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                input_img_mode=mode,
                input_key=recipe.input_key,
                target_key=recipe.target_key,
            )
    except UserError:
        raise
    except _UNOPENED as error:
        where = f"data set {recipe.dataset or 'folder'!r}, split {split!r} of {recipe.data_dir}"
        raise UserError(f"{where}: {one_line(error)}") from error
    _check_columns(recipe, getattr(dataset, "reader", None))
    if isinstance(dataset, IterableDataset):
        if recipe.aug_repeats:
            raise UserError(f"aug_repeats {recipe.aug_repeats}: data set {recipe.dataset!r} is streamed, set it to 0")
        return dataset
    if is_training and getattr(dataset, "train", None) is False:
        raise UserError(f"data set {recipe.dataset!r} has the training split 'train', got train_split {split!r}")
    if not is_training and getattr(dataset, "train", None) is True:
        raise UserError(
            f"data set {recipe.dataset!r}: val_split {split!r} is the training split; set val_split to 'validation'"
        )
    return Images(dataset, mode)


def open_splits(recipe: Recipe) -> tuple[Any, Any]:
    """Open the training and the test split, and make sure that the one can test what is learned on the other.

    Args:
        recipe: names the data set.

    Returns:
        The training split and the test split (``val_split``), with the same numbering of classes.

    Raises:
        UserError: as :func:`open_split`; the same split or images in both; classes that differ.
    """
    check_splits(recipe)
    train, test = open_split(recipe, recipe.train_split), open_split(recipe, recipe.val_split)
    if not (isinstance(train, Images) and isinstance(test, Images)):
        return train, test
    # timm takes the whole folder for every split that has no folder of its own.
    if not train.files().isdisjoint(test.files()):
        raise UserError(
            f"data folder {recipe.data_dir!r} has no separate splits; put the images into {recipe.train_split}/ "
            f"and {recipe.val_split}/ (or val/), one folder per class in each, or name two tar files in it as splits"
        )
    return train, renumbered(recipe, test, train.classes, repr(recipe.train_split), recipe.val_split)


def renumbered(recipe: Recipe, dataset: Any, classes: Mapping[str, int] | None, whose: str, split: str) -> Any:
    """A split with classes numbered as in ``classes``.

    Folders are numbered split by split, so a class that is missing in one shifts all others.

    Args:
        recipe: names the data set.
        dataset: the split.
        classes: class indices by name; None takes the split as it is.
        whose: whose classes they are, for errors.
        split: the split's name.

    Raises:
        UserError: classes that ``classes`` lacks, or a data set that can't be renumbered.
    """
    own = getattr(dataset, "classes", None)
    if classes is None or own is None or own == classes:
        return dataset
    unknown = sorted(set(own) - set(classes))
    if unknown:
        raise UserError(f"split {split!r} has classes that {whose} lacks: {listed(unknown)}")
    dataset = open_split(recipe, split, classes)
    if dataset.classes != classes:
        raise UserError(
            f"split {split!r} numbers its classes ({listed(own)}) differently from {whose} ({listed(classes)})"
        )
    return dataset


def hold_out(train: Any, fraction: float) -> tuple[Images, Images]:
    """Split the training split in two: one part to train on, one to compare architectures on.

    Args:
        train: training split.
        fraction: share of each class that is held out, above 0 and below 1.

    Returns:
        The part to train on and the held-out part. Both are the same in every process.

    Raises:
        UserError: a fraction out of its range, a data set that is streamed, or too small for the fraction.
    """
    if not 0 < fraction < 1:
        raise UserError(f"validation fraction {fraction} must be above 0 and below 1, for example 0.2")
    if not isinstance(train, Images):
        raise UserError("the data set is streamed, so no part of it can be held out; use a folder")
    try:
        kept, held_out = train_test_split(
            np.arange(len(train)), test_size=fraction, random_state=SPLIT_SEED, stratify=train.targets()
        )
    except ValueError as error:
        raise UserError(f"can't hold out {fraction} of {len(train)} images: {one_line(error)}") from error
    return train.part(sorted(kept.tolist())), train.part(sorted(held_out.tolist()))


def count_classes(dataset: Any, recipe: Recipe) -> int:
    """Number of classes: the recipe's where it says so, otherwise the data set's, up to its highest index.

    Raises:
        UserError: neither says, or both and not the same; a class map with other things than indices.
    """
    classes = getattr(dataset, "classes", None)
    if classes and not all(isinstance(index, int) and index >= 0 for index in classes.values()):
        raise UserError(f"class_map {recipe.class_map!r}: class indices must be whole numbers from 0")
    # A class map may merge folders and leave gaps.
    own = max(classes.values()) + 1 if classes else None
    if own == 1:
        raise UserError(
            f"data set {recipe.data_dir or recipe.dataset!r} has 1 class ({listed(classes or ())}), and nothing can be "
            "told apart; is the folder named that holds the splits, each with a folder per class?"
        )
    if recipe.num_classes is None:
        if own is None:
            raise UserError(f"data set {recipe.dataset!r} doesn't say how many classes it has; set num_classes")
        return own
    if own is not None and own != recipe.num_classes:
        raise UserError(
            f"num_classes {recipe.num_classes} is not the data set's: it has {own} classes; set num_classes "
            "to that, or leave it out"
        )
    return recipe.num_classes


def found_in(train: Any, test: Any, names: Sequence[str]) -> str:
    """What was found in a data set, on one line: classes, images of each split, what was left out.

    Args:
        train: its training split.
        test: its test split.
        names: of the two.
    """
    classes = getattr(train, "classes", None)
    parts = [] if classes is None else [f"{len(classes)} classes ({listed(map(str, classes))})"]
    for split, name in zip((train, test), names, strict=True):
        if isinstance(split, Images):
            parts.append(f"{len(split)} images in {name!r}{split.left_out and f' (left out: {split.left_out})'}")
    lacking = set(classes or ()) - {name for name, index in (classes or {}).items() if index in _indices(test)}
    if lacking:
        parts.append(f"none in {names[1]!r} of {listed(sorted(map(str, lacking)))}")
    return ", ".join(parts) or "streamed"


def fingerprint_of(*splits: Any) -> str:
    """What tells the images and classes of a data set from others, wherever they lie; empty where it is streamed."""
    return " ".join(split.fingerprint() for split in splits if isinstance(split, Images))


def _indices(split: Any) -> Collection[int]:
    """Classes of which there are images; any where that isn't known."""
    targets = split.targets() if isinstance(split, Images) else None
    return range(sys.maxsize) if targets is None else set(targets)


def _check_columns(recipe: Recipe, reader: Any) -> None:
    """Raise a UserError where a data set of Hugging Face's lacks a column."""
    table: Any = getattr(reader, "dataset", None)
    if not isinstance(getattr(table, "column_names", None), list) or not len(table):
        return
    # What the reader asked for and isn't there was added, with nothing in it.
    filled = {name for name, value in table[0].items() if value is not None}
    for key, default in (("input_key", "image"), ("target_key", "label")):
        wanted = getattr(recipe, key) or default
        if not set(wanted.split(",")) <= filled:
            raise UserError(
                f"data set {recipe.dataset!r} has no column {wanted!r}; set {key} to one of {listed(sorted(filled))}"
            )


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


@contextlib.contextmanager
def _more_kinds_of_images() -> Iterator[None]:
    """While a data set is opened: timm's readers take JPEG and PNG, torchvision's WebP, BMP, PPM and TIFF as well."""
    known = get_img_extensions()
    add_img_extensions(IMG_EXTENSIONS)
    try:
        yield
    finally:
        set_img_extensions(known)
