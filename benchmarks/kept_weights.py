"""Weights that a benchmark trains once and keeps: in a folder of the user's, none in this project."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from cp_vision.shared.errors import UserError
from cp_vision.shared.files import make_folder

__all__ = ["load_or_train", "with_error"]


def load_or_train(model: nn.Module, file: Path, train: Callable[[nn.Module], None]) -> nn.Module:
    """A model with the weights of a file, which is made by training where it is missing.

    Args:
        model: of the file's architecture; changed in place.
        file: safetensors under the names of the model's state dict.
        train: trains the model in place.

    Returns:
        The model in eval mode.

    Raises:
        UserError: weights of another model, or a folder that can't be made.
    """
    if file.exists():
        try:
            model.load_state_dict(load_file(file))
        except RuntimeError as error:
            raise UserError(f"{str(file)!r} holds weights of another model; remove it to train anew") from error
    else:
        make_folder(file.parent)
        train(model)
        unfinished = file.with_name(f".{file.name}.unfinished")
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, unfinished)
        os.replace(unfinished, file)
    return model.eval()


def with_error(percent: float, count: int) -> str:
    """An accuracy in percent over ``count`` images, with its binomial standard error in points."""
    share = percent / 100
    return f"{percent:.2f} ± {100 * math.sqrt(share * (1 - share) / count):.2f} %"
