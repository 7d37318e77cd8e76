"""What a user's own evaluation of a model gave, with its error where it can be told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cp_vision.shared.errors import UserError

__all__ = ["Accuracy", "Evaluate", "evaluated"]

# Gives an accuracy: a number, or one value for each image (1 where it is right).
Evaluate = Callable[[nn.Module], Any]


@dataclass(frozen=True)
class Accuracy:
    """An accuracy.

    Attributes:
        value: as it was given; of values for images the mean, in percent.
        error: its standard error, in percent; None of a number alone.
        values: of each image, where they were given.
    """

    value: float
    error: float | None = None
    values: Tensor | None = field(default=None, repr=False, compare=False)

    def over(self, other: Accuracy) -> Accuracy:
        """What it has over another one; of values for the same images paired, with the error of the pairs.

        Source: of rights and wrongs the interval of Agresti and Min, Statistics in Medicine 24, 2005.
        """
        one, two = self.values, other.values
        if one is None or two is None or len(one) != len(two):
            return Accuracy(self.value - other.value)
        difference = _of_values(one - two)
        if not _is_right_or_wrong(torch.cat([one, two])):
            return difference
        # Models that differ in none of some hundred images may differ in others: half an image more for either.
        count, gain = len(one) + 2, float((one - two).sum())
        spread = float((one - two).square().sum()) + 1 - gain**2 / count
        return dataclasses.replace(difference, error=100 * math.sqrt(spread) / count)

    def __str__(self) -> str:
        return f"{self.value:.4g}" if self.error is None else f"{self.value:.2f} ± {self.error:.2f}"


def evaluated(evaluate: Evaluate, model: nn.Module) -> Accuracy:
    """Evaluate a model.

    Raises:
        UserError: neither a number nor numbers for images.
    """
    with torch.no_grad():
        given = evaluate(model)
    try:
        values = torch.as_tensor(given, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"evaluate gave {given!r}; it must give a number, or one number for each image") from error
    if len(values) == 0 or not torch.isfinite(values).all():
        raise UserError(f"evaluate gave {given!r}; it must give a number, or one number for each image")
    if torch.as_tensor(given).ndim == 0:
        return Accuracy(float(values[0]))
    return _of_values(values)


def _of_values(values: Tensor) -> Accuracy:
    count, mean = len(values), float(values.mean())
    if _is_right_or_wrong(values):
        # Half an image more of both kinds, so that no accuracy is certain.
        share = (count * mean + 0.5) / (count + 1)
        error = math.sqrt(share * (1 - share) / (count + 1))
    else:
        error = float(values.std(correction=1)) / math.sqrt(count) if count > 1 else math.nan
    return Accuracy(100 * mean, 100 * error, values)


def _is_right_or_wrong(values: Tensor) -> bool:
    return bool(((values == 0) | (values == 1)).all())
