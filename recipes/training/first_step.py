"""One step of a training before anything is written, so that mistakes show at once."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError

from ..data.evaluation_loader import ScoringLoader
from ..data.failures import reason_of
from ..data.training_loader import TrainingLoader
from ..evaluation.evaluate import evaluate
from ..processes import Processes
from ..recipe.keys import Recipe
from .trainer import Trainer, TrainingError

__all__ = ["first_step", "rehearse"]


@contextlib.contextmanager
def first_step(*passed: type[Exception]) -> Iterator[None]:
    """Take a first step: whatever a value of the recipe makes timm or torch raise there becomes one line.

    Args:
        *passed: errors that the caller handles itself.

    Raises:
        UserError: the step fails.
        CommandError: too many images can't be read.
    """
    kept: tuple[type[Exception], ...] = (UserError, CommandError, *passed)
    try:
        yield
    except kept:
        raise
    except Exception as error:
        raise UserError(f"a first training step fails: {reason_of(error)}") from error


def rehearse(
    model: Any, recipe: Recipe, loader: TrainingLoader, scoring_loader: ScoringLoader, processes: Processes
) -> None:
    """Take one training step and score one batch.

    Args:
        model: a model to throw away.
        recipe: the recipe.
        loader: training loader.
        scoring_loader: the other loader.
        processes: this process.

    Raises:
        UserError: the model, the recipe and the data don't go together.
        CommandError: too many images can't be read.
    """
    with first_step():
        loss = Trainer(model, recipe, loader, processes).one_update()
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss}; look at mean, std and lr")
        # A batch of images none of which can be read is empty.
        full = (batch for batch in scoring_loader if len(batch[1]))
        evaluate(model, itertools.islice(full, 1), processes, recipe)
