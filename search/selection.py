"""Who leads among the candidates that were tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest

from .types import Candidate, Measure

__all__ = ["Leaders", "finalists", "leaders", "pareto_front"]


@dataclass(frozen=True)
class Leaders:
    """The candidates that have a role; None where there is none yet.

    Attributes:
        base: no pools, no drops. It sets the scale; where it is over the budget it can't win.
        best: the winner so far.
        best_drops_only: the same among those that drop blocks and don't pool.
    """

    base: Candidate | None
    best: Candidate | None
    best_drops_only: Candidate | None

    def all(self) -> list[Candidate]:
        """Those that there are, each once."""
        found = [c for c in (self.best, self.base, self.best_drops_only) if c is not None]
        return [c for i, c in enumerate(found) if c not in found[:i]]


def leaders(candidates: Iterable[Candidate], keep_accuracy: float | None = None, measure: Measure = "macs") -> Leaders:
    """Find who leads: the most accurate within the budget, or the cheapest that keeps the base's accuracy.

    Where some were trained by themselves after shared weights had scored them, those alone can win.

    Args:
        candidates: finished candidates.
        keep_accuracy: how many points below the base a winner may be; None lets the most accurate win. The cheaper
            of equals comes first, and where none keeps the accuracy the most accurate.
        measure: what makes one cheaper.
    """
    complete = [c for c in candidates if c.accuracy is not None and c.state == "complete"]
    trained = [c for c in complete if c.trained is not None]
    within = [c for c in trained or complete if c.within_budget]
    base, order = _base(complete), _ranking(complete, keep_accuracy, measure)
    drops_only = [c for c in within if c.drops_only]
    return Leaders(base, min(within, key=order, default=None), min(drops_only, key=order, default=None))


def finalists(
    candidates: Sequence[Candidate], count: int, keep_accuracy: float | None = None, measure: Measure = "macs"
) -> list[Candidate]:
    """Those to train by themselves after shared weights scored all: the leaders, and the best.

    Args:
        candidates: finished candidates, the base among them.
        count: how many of the best.
        keep_accuracy: as for :func:`leaders`.
        measure: as for :func:`leaders`.
    """
    within = [c for c in candidates if c.within_budget and c.state == "complete"]
    best = nsmallest(count, within, key=_ranking(candidates, keep_accuracy, measure))
    found = {c.number: c for c in [*leaders(candidates, keep_accuracy, measure).all(), *best]}
    return list(found.values())


def _ranking(
    candidates: Iterable[Candidate], keep_accuracy: float | None, measure: Measure
) -> Callable[[Candidate], tuple[float, ...]]:
    """What candidates are sorted by, the best first."""
    base = _base(candidates)
    floor = None if keep_accuracy is None or base is None else _accuracy(base) - keep_accuracy

    def order(candidate: Candidate) -> tuple[float, ...]:
        accuracy, cost = _accuracy(candidate), candidate.cost(measure)
        if floor is not None and accuracy >= floor:
            return (0.0, cost, -accuracy, candidate.number)
        return (1.0, -accuracy, cost, candidate.number)

    return order


def _base(candidates: Iterable[Candidate]) -> Candidate | None:
    return next((c for c in candidates if c.is_base and c.accuracy is not None and c.state == "complete"), None)


def _accuracy(candidate: Candidate) -> float:
    accuracy = candidate.accuracy if candidate.trained is None else candidate.trained
    return 0.0 if accuracy is None else accuracy


def pareto_front(candidates: Iterable[Candidate], measure: Measure = "macs") -> tuple[int, ...]:
    """Numbers of the complete candidates within the budget that none beats in both accuracy and cost, cheapest first.

    Of candidates that tie in both, the one with the lowest number stands for all.

    Args:
        candidates: the candidates.
        measure: what cost is; a search takes that of its first budget (:attr:`Results.measure`).
    """
    front: list[int] = []
    best = float("-inf")
    complete = [c for c in candidates if c.accuracy is not None and c.state == "complete" and c.within_budget]
    for _, negative_accuracy, number in sorted((c.cost(measure), -(c.accuracy or 0.0), c.number) for c in complete):
        if -negative_accuracy > best:
            best = -negative_accuracy
            front.append(number)
    return tuple(front)
