"""Bases whose weights know nothing of the classes."""

from __future__ import annotations

import math

from cp_vision.shared.command_line import CommandError

__all__ = ["refuse_guessing"]


def refuse_guessing(accuracy: float, classes: int, images: int) -> None:
    """Refuse a base that is right no more often than by guessing.

    Args:
        accuracy: top-1 in percent.
        classes: number of classes.
        images: that it was scored on.

    Raises:
        CommandError: it is within two standard errors of a guess.
    """
    guess = 1 / classes
    if accuracy <= 100 * (guess + 2 * math.sqrt(guess * (1 - guess) / images)):
        raise CommandError(
            f"the base is {accuracy:.1f} % right without training, no more than by guessing on {images} images: its "
            "weights seem to be those of other classes; name some that were trained on this data set, or score on more "
            "images"
        )
