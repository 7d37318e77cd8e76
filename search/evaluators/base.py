"""What every evaluator takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cp_vision import Architecture
from cp_vision.shared.command_line import CommandError

__all__ = ["Evaluator", "NotKeptError", "OnEpoch", "OutOfTimeError", "Score", "SeededEvaluator", "StoppedEarly"]


OnEpoch = Callable[[int, int, float, Callable[[], float]], None]
"""Called after every epoch with its number from 1, the number of epochs, the mean loss, and a function that gives
the validation accuracy as it is now; raises :class:`StoppedEarly` where the candidate is one of the worse."""


class StoppedEarly(Exception):  # noqa: N818 - no error, but the end of a training
    """A candidate is not worth more training.

    Args:
        accuracy: its validation accuracy by then, percent.
    """

    def __init__(self, accuracy: float) -> None:
        super().__init__(f"stopped early at {accuracy} %")
        self.accuracy = accuracy


class OutOfTimeError(RuntimeError):
    """A candidate took longer than it may."""


class NotKeptError(CommandError):
    """The weights of a candidate can't be written: a full disk, say, which is no fault of the candidate's."""


@dataclass(frozen=True)
class Score:
    """What came of one candidate: validation top-1 in percent, and its number of parameters."""

    accuracy: float
    params: int


class Evaluator(Protocol):
    """Scores one architecture; raises ``RuntimeError`` with a one-line reason where that fails.

    A :class:`NotKeptError` ends the search, and the candidate is tried again when it goes on. One of your own goes into
    ``Search(config).run(evaluator=...)``.
    """

    def __call__(self, architecture: Architecture, img_size: int | None, on_epoch: OnEpoch) -> Score:
        """Score one architecture, calling ``on_epoch`` as it goes.

        Args:
            architecture: the architecture.
            img_size: side of the images in pixels; None is the recipe's.
            on_epoch: what it raises ends the training.
        """


class SeededEvaluator(Protocol):
    """Scores one architecture after a training with a seed; what :class:`Evaluator` says holds for it, too."""

    def __call__(self, architecture: Architecture, img_size: int | None, on_epoch: OnEpoch, seed: int | None) -> Score:
        """Score one architecture.

        Args:
            architecture: the architecture.
            img_size: side of the images in pixels; None is the recipe's.
            on_epoch: what it raises ends the training.
            seed: of the training; None is the recipe's.
        """
