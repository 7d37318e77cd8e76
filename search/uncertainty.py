"""How certain an accuracy is: standard errors over trainings, and differences of two candidates with an interval.

Trainings of one candidate that differ by their seed alone spread about as much whatever the candidate is, so the spread
is estimated from all finalists together: three trainings of one tell next to nothing of theirs. All are scored on the
same images; how other images would be classified is another error, which isn't in these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from scipy.stats import t as student

from .types import Candidate, Results

__all__ = [
    "Difference",
    "Spread",
    "accuracies",
    "difference",
    "seed_spread",
    "standard_error",
    "test_difference",
    "validation_difference",
]

_LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """How the accuracies of one model spread over the seeds of its training.

    Attributes:
        deviation: standard deviation in percent points.
        freedom: degrees of freedom of that estimate.
    """

    deviation: float
    freedom: int


@dataclass(frozen=True)
class Difference:
    """What one model's accuracy has over another's, in percent points.

    Attributes:
        gain: the mean over the seeds that both were trained with, or of all where they have none in common.
        error: its standard error; None where nothing was trained twice.
        interval: half the width of its 95 % confidence interval (Student's t); None where there is no error.
    """

    gain: float
    error: float | None
    interval: float | None

    @property
    def distinguishable(self) -> bool:
        """Whether there is an interval and 0 lies outside of it."""
        return self.interval is not None and abs(self.gain) > self.interval


def accuracies(candidate: Candidate) -> Mapping[int, float]:
    """Validation top-1 by seed, percent; of one that is no finalist its only one, under the seed -1; empty for none."""
    if candidate.by_seed or candidate.score is None:
        return candidate.by_seed
    return {-1: candidate.score}


def seed_spread(trainings: Iterable[Mapping[int, float]]) -> Spread | None:
    """The pooled spread of models with accuracies of two seeds or more; None where there is none, or they don't differ.

    Args:
        trainings: of each model the accuracies by seed, percent.
    """
    squares, freedom = 0.0, 0
    for by_seed in trainings:
        if len(by_seed) > 1:
            mean = fmean(by_seed.values())
            squares += sum((accuracy - mean) ** 2 for accuracy in by_seed.values())
            freedom += len(by_seed) - 1
    return Spread(math.sqrt(squares / freedom), freedom) if squares > 0 else None


def standard_error(candidate: Candidate, results: Results) -> float | None:
    """The standard error of :attr:`Candidate.score`, percent points; None where the candidate isn't complete.

    Over trainings, once any candidate was trained with several seeds; before, and of scores with shared weights, over
    the held-out images alone, as of a binomial share; None where their number isn't known either.
    """
    if candidate.score is None:
        return None
    spread = seed_spread(results.by_seed)
    if spread is not None and (candidate.by_seed or results.evaluator == "train"):
        return spread.deviation / math.sqrt(max(1, len(candidate.by_seed)))
    if not results.held_out:
        return None
    right = min(max(candidate.score / 100, 0.0), 1.0)
    return 100 * math.sqrt(right * (1 - right) / results.held_out)


def difference(one: Mapping[int, float], other: Mapping[int, float], spread: Spread | None) -> Difference:
    """What a model has over another one.

    Args:
        one: its accuracies by seed, percent; one at least.
        other: those of the other one.
        spread: how accuracies spread over seeds; None where that isn't known.
    """
    common = sorted(one.keys() & other.keys())
    first, second = ([values[seed] for seed in common or values] for values in (one, other))
    gain = fmean(first) - fmean(second)
    if spread is None:
        return Difference(gain, None, None)
    error = spread.deviation * math.sqrt(1 / len(first) + 1 / len(second))
    return Difference(gain, error, error * float(student.ppf((1 + _LEVEL) / 2, spread.freedom)))


def validation_difference(one: Candidate, other: Candidate, results: Results) -> Difference:
    """What a complete candidate of a search has over another one on the validation split."""
    spread = seed_spread(results.by_seed)
    return difference(accuracies(one), accuracies(other), spread)


def test_difference(one: Candidate, other: Candidate, results: Results) -> Difference | None:
    """The same on the test split; None where one of them wasn't scored there."""
    scored = [results.test_accuracy.get(c.number) for c in (one, other)]
    if not (scored[0] and scored[1]):
        return None
    return difference(scored[0], scored[1], seed_spread(results.test_accuracy.values()))
