"""Who leads among the candidates that were tried, and which of them are trained again before one wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .types import Candidate, Measure
from .uncertainty import accuracies, difference, seed_spread

__all__ = ["Leaders", "finalists", "keeps_accuracy", "leaders", "pareto_front", "unpooled_counterpart"]


@dataclass(frozen=True)
class Leaders:
    """The candidates that have a role; None where there is none yet.

    Attributes:
        base: no pools, no drops. It sets the scale; where it is over the budget it can't win.
        best: the winner so far.
        best_drops_only: the same among those that drop blocks and don't pool.
        pooled: the winner if it pools, else the best that does.
        unpooled: the same as ``pooled`` without its pools.
    """

    base: Candidate | None
    best: Candidate | None
    best_drops_only: Candidate | None
    pooled: Candidate | None
    unpooled: Candidate | None

    def all(self) -> list[Candidate]:
        """Those that there are, each once."""
        return _once(self.best, self.base, self.best_drops_only, *self.pair())

    def tested(self) -> list[Candidate]:
        """Those that are scored on the test split, each once."""
        return _once(self.best, self.base, *self.pair())

    def pair(self) -> tuple[Candidate, ...]:
        """The one that pools and its counterpart without pools; empty unless there are both."""
        return () if self.pooled is None or self.unpooled is None else (self.pooled, self.unpooled)


def leaders(candidates: Iterable[Candidate], keep_accuracy: float | None = None, measure: Measure = "macs") -> Leaders:
    """Find who leads: the most accurate within the budget, or the cheapest that keeps the base's accuracy.

    Once finalists were trained with several seeds those alone can win, by their means.

    Args:
        candidates: finished candidates.
        keep_accuracy: how many points below the base a winner may be; None lets the most accurate win. The cheaper
            of equals comes first, and where none keeps the accuracy the most accurate.
        measure: what makes one cheaper.
    """
    complete = [c for c in candidates if c.score is not None]
    within = [c for c in complete if c.within_budget]
    may_win = [c for c in within if c.by_seed] or within
    order = _ranking(complete, keep_accuracy, measure)

    def first(found: Iterable[Candidate]) -> Candidate | None:
        return min(found, key=order, default=None)

    best = first(may_win)
    pooled = best if best is not None and best.pools else first(c for c in may_win if c.pools)
    return Leaders(
        _base(complete),
        best,
        first(c for c in may_win if c.drops_only),
        pooled,
        None if pooled is None else unpooled_counterpart(pooled, [c for c in complete if c.by_seed] or complete),
    )


def unpooled_counterpart(pooled: Candidate, candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate that is the same without pools; None where it isn't among these."""

    def kept(candidate: Candidate) -> dict[str, Any]:
        return {name: value for name, value in candidate.settings.items() if name not in ("mode", "support_range")}

    alike = (c for c in candidates if not c.pools and c.drops == pooled.drops and kept(c) == kept(pooled))
    return next(alike, None)


def finalists(
    candidates: Sequence[Candidate],
    count: int,
    keep_accuracy: float | None = None,
    measure: Measure = "macs",
    seeds: int = 1,
) -> list[Candidate]:
    """Those that are trained with further seeds once all were scored.

    The best by their first score, as many as asked for; the base; the best that pools and the best that drops only
    where these are of neither kind; and the counterparts without pools of those that pool. Where an accuracy is to be
    kept, and none of the best keeps it with confidence, as many others follow one by one that kept it at first.

    Args:
        candidates: finished candidates.
        count: how many of the best.
        keep_accuracy: as for :func:`leaders`.
        measure: as for :func:`leaders`.
        seeds: of each finalist, after which it is known whether it keeps the accuracy.
    """
    complete = [c for c in candidates if c.state == "complete" and c.accuracy is not None]
    order = _ranking(complete, keep_accuracy, measure, first=True)
    ranked = sorted((c for c in complete if c.within_budget), key=order)
    chosen = ranked[:count]
    if keep_accuracy is not None:
        base, kept = _base(complete), [c for c in ranked if order(c)[0] == 0.0]
        # A training that failed has its reason noted, and isn't waited for.
        while len(chosen) < min(2 * count, len(kept)) and all(len(c.by_seed) >= seeds or c.reason for c in chosen):
            if base is None or any(keeps_accuracy(c, base, complete, keep_accuracy) for c in chosen if not c.is_base):
                break
            chosen = kept[: len(chosen) + 1]
    for sort in (lambda c: c.pools, lambda c: c.drops_only):
        if not any(map(sort, chosen)):
            chosen = [*chosen, *[c for c in ranked if sort(c)][:1]]
    counterparts = [unpooled_counterpart(c, complete) for c in chosen if c.pools]
    return _once(_base(complete), *chosen, *counterparts)


def keeps_accuracy(candidate: Candidate, base: Candidate, candidates: Iterable[Candidate], points: float) -> bool:
    """Whether a candidate is within so many points of the base; of finalists, by a standard error at least.

    Args:
        candidate: it.
        base: the base, which keeps its own accuracy.
        candidates: all, which tell how trainings spread.
        points: percent points.
    """
    if candidate.is_base:
        return True
    spread = seed_spread(c.by_seed for c in candidates) if candidate.by_seed else None
    found = difference(accuracies(candidate), accuracies(base), spread)
    return found.gain - (found.error or 0.0) >= -points


def pareto_front(candidates: Iterable[Candidate], measure: Measure = "macs") -> tuple[int, ...]:
    """Numbers of the complete candidates within the budget that none beats in both accuracy and cost, cheapest first.

    Of candidates that tie in both, the one with the lowest number stands for all.

    Args:
        candidates: the candidates.
        measure: what cost is; a search takes that of its first budget (:attr:`Results.measure`).
    """
    front: list[int] = []
    best = float("-inf")
    complete = [(c.cost(measure), -c.score, c.number) for c in candidates if c.score is not None and c.within_budget]
    for _, negative_accuracy, number in sorted(complete):
        if -negative_accuracy > best:
            best = -negative_accuracy
            front.append(number)
    return tuple(front)


def _ranking(
    complete: Sequence[Candidate], keep_accuracy: float | None, measure: Measure, first: bool = False
) -> Callable[[Candidate], tuple[float, ...]]:
    """What candidates are sorted by, the best first; by their first scores alone, or by what is known by now."""
    base = _base(complete)

    def order(candidate: Candidate) -> tuple[float, ...]:
        accuracy, cost = (candidate.accuracy if first else candidate.score) or 0.0, candidate.cost(measure)
        if base is not None and keep_accuracy is not None:
            if first:
                kept = accuracy >= (base.accuracy or 0.0) - keep_accuracy
            else:
                kept = keeps_accuracy(candidate, base, complete, keep_accuracy)
            if kept:
                return (0.0, cost, -accuracy, candidate.number)
        return (1.0, -accuracy, cost, candidate.number)

    return order


def _base(complete: Iterable[Candidate]) -> Candidate | None:
    return next((c for c in complete if c.is_base), None)


def _once(*candidates: Candidate | None) -> list[Candidate]:
    """Those that there are, each once, in their order."""
    return list({c.number: c for c in candidates if c is not None}.values())
