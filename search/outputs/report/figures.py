"""Which figures of a candidate the report may show, and which candidates have a part in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeVar

from ...selection import pareto_front
from ...types import Candidate, Results

Key = TypeVar("Key")
Kind = Literal["pooled", "drops", "base"]


def finite_only(results: Results) -> Results:
    """The results without figures that are no finite numbers, which could neither be drawn nor told."""
    candidates = [
        replace(c, accuracy=_finite(c.accuracy), by_seed=_finite_in(c.by_seed), latency=_finite(c.latency))
        for c in results.candidates
    ]
    return replace(
        results,
        candidates=tuple(replace(c, seconds=_finite(c.seconds) or 0.0) for c in candidates),
        keep_accuracy=_finite(results.keep_accuracy),
        agreement=_finite(results.agreement),
        test_accuracy={number: _finite_in(by_seed) for number, by_seed in results.test_accuracy.items()},
        importance=_finite_in(results.importance),
        sensitivity=_finite_in(results.sensitivity),
        measured_latency=_finite_in(results.measured_latency),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _finite_in(values: Mapping[Key, float]) -> dict[Key, float]:
    return {key: value for key, value in values.items() if math.isfinite(value)}


def score(candidate: Candidate) -> float | None:
    """Validation accuracy of a complete candidate, of a finalist its mean over trainings; None for others."""
    return candidate.score


def partial_score(candidate: Candidate) -> float | None:
    """Validation accuracy of a candidate at the epoch where it was stopped early; None for others."""
    return candidate.accuracy if candidate.state == "stopped" else None


def known_score(candidate: Candidate) -> float:
    """Validation accuracy of a candidate that is complete.

    Raises:
        ValueError: it isn't.
    """
    accuracy = score(candidate)
    if accuracy is None:
        raise ValueError(f"candidate {candidate.number} has no accuracy: it is {candidate.state}")
    return accuracy


def kind(candidate: Candidate) -> Kind:
    """What sort of architecture a candidate is, which sets its shape and colour."""
    if candidate.pools:
        return "pooled"
    return "base" if candidate.is_base else "drops"


def find(results: Results, number: int | None) -> Candidate | None:
    """The candidate of that number if it is complete, else None."""
    return next((c for c in results.candidates if c.number == number and score(c) is not None), None)


def front(results: Results, pooled: bool = True) -> list[Candidate]:
    """Members of the Pareto front, cheapest first; without ``pooled`` that of the candidates that don't pool."""
    among = {c.number: c for c in results.candidates if score(c) is not None and (pooled or not c.pools)}
    return [among[number] for number in pareto_front(among.values(), results.measure)]


def shared(results: Results) -> bool:
    """Whether candidates were scored with shared weights, and some trained by themselves afterwards."""
    return results.evaluator == "supernet"
