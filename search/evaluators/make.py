"""The evaluator that a search asks for, ready to score."""

from __future__ import annotations

from ..context import SearchContext
from ..observer import Observer
from .base import Evaluator
from .sensitivity import UntrainedEvaluator
from .train import TrainEvaluator

__all__ = ["make_evaluator"]


def make_evaluator(context: SearchContext, observer: Observer) -> Evaluator:
    """Make the evaluator of a search; shared weights are trained here, or read where they are ready.

    Args:
        context: the search.
        observer: is told how the training of shared weights goes on.
    """
    if context.config.evaluator == "sensitivity":
        return UntrainedEvaluator(TrainEvaluator.of(context))
    if context.config.evaluator == "train":
        return TrainEvaluator.of(context)
    from .supernet.setup import make_supernet

    return make_supernet(context, observer)
