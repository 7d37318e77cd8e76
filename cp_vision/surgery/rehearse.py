"""A change of a model tried on a copy that takes no memory."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..anatomy.unknown_families import run_trial
from ..cost.input_size import input_size_of
from ..cost.on_meta_device import meta_copy

__all__ = ["rehearse"]


def rehearse(model: nn.Module, change: Callable[[nn.Module], object]) -> None:
    """Make a change on a copy of the model that takes no memory, and run that.

    Args:
        model: stays as it is.
        change: changes the model that it is given.

    Raises:
        UserError: that of the change, or the changed model doesn't run.
    """
    trial = meta_copy(model)
    change(trial)
    run_trial(trial, input_size_of(model), f"{type(model).__name__} models can't be changed like this")
