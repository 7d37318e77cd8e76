"""How far a changed model is from its base, on held-out images, without labels.

Shapes: B images, K classes, n further axes of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cp_vision.shared.errors import UserError
from cp_vision.shared.nested import tensors_in

__all__ = ["Divergence"]


class Divergence:
    """Distance of outputs from a base's.

    Of a classifier's logits (B, K) the mean Kullback-Leibler divergence of its classes from the base's, in nats; of
    other outputs, such as features, their squared distance as a share of the base's variance over images, the mean of
    all outputs. Summed in float64.

    Args:
        model: the base.
        outputs: of the base, for each batch.

    Raises:
        UserError: outputs without tensors, that aren't finite, or that are the same for all images.
    """

    def __init__(self, model: Any, outputs: Sequence[Any]) -> None:
        self._wanted = [tensors_in(output) for output in outputs]
        if not self._wanted or not self._wanted[0]:
            raise UserError(f"{type(model).__name__} gives {type(outputs[0]).__name__}, in which no tensor was found")
        if not all(torch.isfinite(tensor).all() for tensors in self._wanted for tensor in tensors):
            raise UserError("the base gives values that are no numbers (NaN or infinite) for these images")
        first = self._wanted[0][0]
        classes = getattr(model, "num_classes", None)
        self.is_of_logits = len(self._wanted[0]) == 1 and first.ndim == 2 and first.shape[1] > 1 and classes != 0
        self._means = [torch.cat(parts).double().mean(0) for parts in zip(*self._wanted, strict=True)]
        self._totals = [self._squares(self._wanted, i) for i in range(len(self._means))]
        if not self.is_of_logits and not all(total > 0 for total in self._totals):
            raise UserError("the base gives the same for all images; give different ones")

    @property
    def name(self) -> str:
        """What is measured."""
        return "KL" if self.is_of_logits else "distance"

    def of(self, outputs: Sequence[Any]) -> float:
        """Distance of a model whose outputs for the first batches are these; infinite where they aren't numbers."""
        given = [tensors_in(output) for output in outputs]
        if self.is_of_logits:
            images = sum(len(tensors[0]) for tensors in given)
            total = sum(_kl(own, wanted) for (own,), (wanted,) in zip(given, self._wanted, strict=False))
            return _finite(total / images)
        wanted = self._wanted[: len(given)]
        shares = []
        for i in range(len(self._means)):
            pairs = zip(given, wanted, strict=True)
            error = sum(float((a[i].double() - b[i].double()).square().sum()) for a, b in pairs)
            total = self._totals[i] if len(given) == len(self._wanted) else self._squares(wanted, i)
            shares.append(error / total)
        return _finite(sum(shares) / len(shares))

    def _squares(self, wanted: Sequence[Sequence[Tensor]], i: int) -> float:
        return sum(float((tensors[i].double() - self._means[i]).square().sum()) for tensors in wanted)


def _kl(own_BK: Tensor, wanted_BK: Tensor) -> float:
    own, wanted = (F.log_softmax(logits.double(), 1) for logits in (own_BK, wanted_BK))
    return float(F.kl_div(own, wanted, log_target=True, reduction="sum"))


def _finite(value: float) -> float:
    return max(0.0, value) if value == value else float("inf")
