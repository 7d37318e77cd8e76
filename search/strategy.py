"""What is tried next, from the record alone: whoever asks, and after whatever happened, gets the same answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from .proposals import Proposal, Proposer
from .record import Record
from .results import Candidate, Measure
from .space import KEEP, POOL, Choice, Space, key_of

__all__ = ["Leaders", "Strategy", "leaders", "starting_points", "without_pools"]


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
    base = next((c for c in complete if c.is_base), None)
    floor = None if keep_accuracy is None or base is None else _accuracy(base) - keep_accuracy

    def first(those: list[Candidate]) -> Candidate | None:
        if keeping := [c for c in those if floor is not None and _accuracy(c) >= floor]:
            return min(keeping, key=lambda c: (c.cost(measure), -_accuracy(c), c.number))
        return min(those, key=lambda c: (-_accuracy(c), c.cost(measure), c.number), default=None)

    return Leaders(base=base, best=first(within), best_drops_only=first([c for c in within if c.drops_only]))


def _accuracy(candidate: Candidate) -> float:
    accuracy = candidate.accuracy if candidate.trained is None else candidate.trained
    return 0.0 if accuracy is None else accuracy


def without_pools(choice: Choice) -> dict[str, Any]:
    """The same drops without any pool."""
    return {name: KEEP if value == POOL else value for name, value in choice.items()}


def starting_points(space: Space, sensitivity: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """The base itself, then a few ways to meet the budget by dropping alone.

    Blocks, one at least, are left out from the end, from the start, spread evenly, and where it is known those
    first that the base misses least, until the budget is met. So the race always holds candidates that drop and
    don't pool.

    Args:
        space: the space, with its budgets.
        sensitivity: accuracy that the base loses without each block.
    """
    names = [block.name for block in space.blocks if block.droppable]
    # Every other, then the remaining ones: any prefix of this order is spread over the depth.
    spread = [names[i] for step in (0, 1) for i in range(step, len(names), 2)]
    orders = [names[::-1], names, spread]
    if sensitivity:
        orders.insert(0, sorted(names, key=lambda name: sensitivity.get(name, 0.0)))
    points = [space.choice()]
    for order in orders:
        for count in range(1, len(order) + 1):
            choice = space.choice(drops=order[:count])
            if space.excess(choice) <= 0:
                if choice not in points:
                    points.append(choice)
                break
    return points


class Strategy:
    """Decides what comes next.

    First the base and a few candidates that only drop; then what the sampler proposes. When a candidate with pools
    and drops leads, the same drops without pools come next, also beyond the number of trials, so that it is known
    what its pools bring.

    Args:
        record: what was tried.
        proposer: where candidates come from.
        trials: how many to try, the base included.
        keep_accuracy: as for :func:`leaders`.
    """

    def __init__(self, record: Record, proposer: Proposer, trials: int, keep_accuracy: float | None = None) -> None:
        self.record, self.proposer, self.trials, self.keep_accuracy = record, proposer, trials, keep_accuracy
        self.exhausted = False
        self._learned: set[int] = set()

    def leaders(self) -> Leaders:
        """Who leads."""
        return leaders(self.record.candidates(), self.keep_accuracy, self.record.space.measure)

    def next(self) -> Proposal | None:
        """The next candidate and the proposals refused on the way to it; None where there is none for now."""
        self._learn()
        record, keys = self.record, self.record.keys()
        for choice in starting_points(record.space, record.get("sensitivity")):
            if key_of(choice) not in keys and (len(keys) < self.trials or not keys):
                return dict(choice), []
            if keys.get(key_of(choice)) == 0 and not record.trials[0].state.is_finished():
                # Without the base there is nothing to compare with, so it comes alone.
                return None
        best = self.leaders().best
        if best is not None and best.pools and best.drops:
            twin = record.space.normal(without_pools(record.choice_of(best.number)))
            if key_of(twin) not in keys and record.space.excess(twin) <= 0:
                return twin, []
        if len(keys) >= self.trials:
            return None
        proposed = self.proposer.propose(keys, len(record.trials))
        self.exhausted = proposed is None
        return proposed

    def _learn(self) -> None:
        """Tell the sampler what is new in the record, in its order."""
        for trial in self.record.finished:
            if trial.number in self._learned:
                continue
            self._learned.add(trial.number)
            if key_of(trial.params) not in self.proposer.proposed:
                # A candidate of another process, or of an earlier run.
                for values in trial.user_attrs.get("refused", ()):
                    self.proposer.refuse(values)
            accuracy = trial.user_attrs["result"].get("accuracy") if trial.state != TrialState.FAIL else None
            self.proposer.learn(trial.params, accuracy, stopped=trial.state == TrialState.PRUNED)
