"""The evaluator that a search asks for, ready to score."""

from __future__ import annotations

from .evaluate import Evaluator
from .executor import Observer
from .sensitivity import UntrainedEvaluator
from .setup import Setup

__all__ = ["make_evaluator"]


def make_evaluator(setup: Setup, observer: Observer) -> Evaluator:
    """Make the evaluator of a search; shared weights are trained here, or read where they are ready.

    Args:
        setup: the search.
        observer: is told how the training of shared weights goes on.
    """
    if setup.config.evaluator == "sensitivity":
        return UntrainedEvaluator(setup.trainer)
    if setup.config.evaluator == "train":
        return setup.trainer
    from .supernet_setup import make_supernet

    return make_supernet(setup, observer)
