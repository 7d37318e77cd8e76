"""Weights of a model that is kept outside of timm's registry: a ``local-dir:`` folder, or an ``hf-hub:`` repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from timm.models import load_model_config_from_hf, load_state_dict_from_hf
from timm.models._hub import load_model_config_from_path, load_state_dict_from_path
from torch import Tensor

from cp_vision.models.build import STORED
from cp_vision.shared.errors import UserError, one_line

__all__ = ["StoredModel", "read_labels", "read_stored"]

# How a model wants its images.
_INPUT = ("mean", "std", "interpolation", "crop_pct")


class StoredModel(NamedTuple):
    """What a folder or repository holds.

    Attributes:
        weights: its state dict.
        architecture: timm's name of it, and its arguments, in words.
        images: mean, std, interpolation and crop of the images that it was trained on, as far as they are told.
    """

    weights: dict[str, Tensor]
    architecture: str
    images: dict[str, Any]


def read_stored(name: str) -> StoredModel:
    """Read a model's weights, and what its config.json says of it.

    Args:
        name: ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``, as timm writes and reads them.

    Raises:
        UserError: no such folder or repository, the hub can't be reached, files that can't be read.
    """
    kind, place = _parts(name)
    with _readable(name, kind):
        if kind == "local-dir:":
            config, architecture, args = load_model_config_from_path(place)
            weights: Any = load_state_dict_from_path(place)
        else:
            config, architecture, args = load_model_config_from_hf(place)
            weights = load_state_dict_from_hf(place)
    images = {key: config[key] for key in _INPUT if config.get(key) is not None}
    return StoredModel(weights, f"{architecture} with {args}" if args else architecture, images)


def read_labels(name: str | None) -> Any:
    """The ``label_names`` of a model's config.json; None where it has none, and of what is no such model.

    Args:
        name: of a recipe's ``initial_checkpoint``.

    Raises:
        UserError: as :func:`read_stored`.
    """
    if name is None or not name.startswith(STORED):
        return None
    kind, place = _parts(name)
    with _readable(name, kind):
        read = load_model_config_from_path if kind == "local-dir:" else load_model_config_from_hf
        return read(place)[0].get("label_names")


def _parts(name: str) -> tuple[str, str]:
    kind = next(kind for kind in STORED if name.startswith(kind))
    return kind, name.removeprefix(kind)


@contextmanager
def _readable(name: str, kind: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Whatever a damaged folder, the hub or the network makes timm raise.
        instead = "" if kind == "local-dir:" else "; fetch it where the hub can be reached, and name local-dir:FOLDER"
        raise UserError(f"{name!r} can't be read: {type(error).__name__}: {one_line(error)[:200]}{instead}") from error
