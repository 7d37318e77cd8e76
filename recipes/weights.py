"""Files of weights from anywhere: timm's, DDP's, Lightning's, torch.compile's, with averaged weights or without."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor

from cp_vision.shared.errors import UserError, one_line

__all__ = ["classes_in", "read_weights"]

# What other programs hold a model as: Lightning's modules, and most people's own.
_PREFIXES = ("model.", "net.", "backbone.")


def read_weights(path: str, names: Iterable[str]) -> dict[str, Tensor]:
    """Read a file of weights; averaged weights where it has some, as timm does.

    Args:
        path: a .safetensors file, or one of ``torch.save``: a state dict, or a checkpoint that holds one.
        names: of the weights of the model that they are for: a prefix of other programs is taken off where that
            brings the names nearer to these.

    Raises:
        UserError: no such file, or it can't be read, or holds no weights.
    """
    if not Path(path).is_file():
        raise UserError(f"checkpoint {path!r} is no file; name a .safetensors or .pth file of weights")
    try:
        found: Any = load_state_dict(path)
    except (RuntimeError, pickle.UnpicklingError) as error:
        if "weights_only" in str(error) and zipfile.is_zipfile(path):
            raise UserError(
                f"checkpoint {path!r} holds Python objects, such as a whole model, and these may run any code; save "
                "its weights alone: torch.save(model.state_dict(), FILE)"
            ) from error
        raise _unreadable(path, error) from error
    except (AttributeError, EOFError, KeyError, OSError, SafetensorError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"checkpoint {path!r} holds no weights; name a .safetensors or .pth file of a state dict")
    known = set(names)
    for prefix in _PREFIXES:
        inner = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
        if len(known.intersection(inner)) > len(known.intersection(found)):
            # What is beside the model: a loss, metrics.
            return inner
    return found


def _unreadable(path: str, error: Exception) -> UserError:
    reason = "" if "weights_only" in str(error) else f" ({type(error).__name__}: {one_line(error)[:100]})"
    return UserError(
        f"checkpoint {path!r} can't be read: it is cut off, damaged, or no file of weights{reason}; name a "
        ".safetensors or .pth file"
    )


def classes_in(weights: Mapping[str, Tensor], head: str | Iterable[str] | None) -> int | None:
    """For how many classes the head in a file of weights is; None where it has no such head.

    Args:
        weights: those of the file.
        head: name of the model's classifier, of several the first counts, as timm's configurations have it.
    """
    heads = (head,) if isinstance(head, str) else tuple(head or ())
    biases = (weights.get(f"{one}.{part}") for one in heads for part in ("bias", "weight"))
    return next((len(value) for value in biases if value is not None and value.ndim), None)
