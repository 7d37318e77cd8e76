"""A change of a model tried on a copy that takes no memory."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..anatomy.known_families import is_known
from ..anatomy.unknown_families import run_trial
from ..cost.input_size import input_size_of
from ..cost.on_meta_device import meta_copy
from ..shared.errors import UserError

__all__ = ["rehearse"]


def rehearse(model: nn.Module, change: Callable[[nn.Module], object]) -> None:
    """Make a change on a copy of the model that takes no memory, and run that.

    A model of a family whose blocks are known passes where it can't be run like that as it is.

    Args:
        model: stays as it is.
        change: changes the model that it is given.

    Raises:
        UserError: that of the change, or the changed model doesn't run.
    """
    known = is_known(model)
    try:
        trial, size = meta_copy(model), input_size_of(model)
    except UserError:
        if known:
            return
        raise
    change(trial)
    problem = f"{type(model).__name__} models can't be changed like this"
    try:
        # Blocks of several types work together under autocast, which the meta device has not.
        run_trial(trial.float(), size, problem)
    except UserError:
        if known and not _runs(model, size):
            return
        raise


def _runs(model: nn.Module, size: tuple[int, int, int]) -> bool:
    try:
        run_trial(meta_copy(model).float(), size, "")
    except UserError:
        return False
    return True
