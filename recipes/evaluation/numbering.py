"""Data whose classes are numbered as a model numbers them, whatever the order of their folders."""

from __future__ import annotations

from typing import Any

from ..data.open import open_splits, renumbered
from ..models import label_names
from ..recipe.keys import Recipe
from ..stored import read_labels

__all__ = ["numbered_as", "open_as_stored"]


def numbered_as(labels: Any, recipe: Recipe, dataset: Any, split: str) -> Any:
    """A split with its classes numbered as in a model's labels: its folders alone may lack one, or say others.

    Args:
        labels: ``label_names`` of the model's configuration, a dictionary or a list; None leaves the split as it is.
        recipe: names the data set.
        dataset: the split.
        split: its name.

    Raises:
        UserError: classes that the model lacks, or a data set that can't be renumbered.
    """
    own = getattr(dataset, "classes", None)
    if isinstance(labels, list | tuple):
        # timm's configurations have either.
        labels = {str(index): label for index, label in enumerate(labels)}
    if own is None or not isinstance(labels, dict) or label_names(own) == labels:
        return dataset
    classes: dict[str, int] = {}
    for index, label in labels.items():
        # Of a class of the model that has several of the data set's, or of one that has a comma in its name.
        parts = label.split(", ")
        classes |= dict.fromkeys([label] if own.keys().isdisjoint(parts) else parts, int(index))
    return renumbered(recipe, dataset, classes, "the model", split)


def open_as_stored(recipe: Recipe) -> tuple[Any, Any]:
    """Both splits as of :func:`open_splits`, numbered as the model that the recipe begins with says.

    A file of weights says nothing of its classes; a ``local-dir:`` folder and an ``hf-hub:`` repository may.

    Raises:
        UserError: as :func:`open_splits`, and as :func:`numbered_as`.
    """
    train, test = open_splits(recipe)
    labels = read_labels(recipe.initial_checkpoint)
    return (
        numbered_as(labels, recipe, train, recipe.train_split),
        numbered_as(labels, recipe, test, recipe.val_split),
    )
