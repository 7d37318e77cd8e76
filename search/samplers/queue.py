"""What is tried next, from the record alone: whoever asks, and after whatever happened, gets the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState

from ..selection import Leaders, finalists, leaders
from ..space.space import KEEP, POOL, Genotype, Space, genotype_key
from ..study.trials import TrialStore
from ..types import Candidate
from .base import Proposal, Proposer

__all__ = ["TrialQueue", "starting_points", "unpooled_counterpart", "without_pools"]


def without_pools(choice: Genotype) -> dict[str, Any]:
    """The same drops without any pool."""
    return {name: KEEP if value == POOL else value for name, value in choice.items()}


def unpooled_counterpart(record: TrialStore, candidate: Candidate) -> dict[str, Any]:
    """What is the same as a candidate of the record but for its pools."""
    return record.space.normal(without_pools(record.choice_of(candidate.number)))


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


class TrialQueue:
    """Decides what comes next.

    First the base and a few candidates that only drop; then what the sampler proposes. When a candidate with pools
    leads, the same without pools comes next, also beyond the number of trials, so that it is known what its pools
    bring; and at the end that of each finalist. A strided pool may save so much that without it the budget isn't
    kept: its like is then left out.

    Args:
        record: what was tried.
        proposer: where candidates come from.
        trials: how many to try, the base included.
        keep_accuracy: as for :func:`leaders`.
        finalists: how many of the best will be trained by themselves after shared weights scored all.
    """

    def __init__(
        self,
        record: TrialStore,
        proposer: Proposer,
        trials: int,
        keep_accuracy: float | None = None,
        finalists: int = 0,
    ) -> None:
        self.record, self.proposer, self.trials, self.keep_accuracy = record, proposer, trials, keep_accuracy
        self.finalists = finalists
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
            if genotype_key(choice) not in keys and (len(keys) < self.trials or not keys):
                return dict(choice), []
            if keys.get(genotype_key(choice)) == 0 and not record.trials[0].state.is_finished():
                # Without the base there is nothing to compare with, so it comes alone.
                return None
        count = self.finalists if len(keys) >= self.trials else 0
        for candidate in finalists(record.candidates(), count, self.keep_accuracy, record.space.measure):
            if candidate.pools:
                twin = unpooled_counterpart(record, candidate)
                if genotype_key(twin) not in keys and record.space.excess(twin) <= 0:
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
            if genotype_key(trial.params) not in self.proposer.proposed:
                # A candidate of another process, or of an earlier run.
                for values in trial.user_attrs.get("refused", ()):
                    self.proposer.refuse(values)
            accuracy = trial.user_attrs["result"].get("accuracy") if trial.state != TrialState.FAIL else None
            self.proposer.learn(trial.params, accuracy, stopped=trial.state == TrialState.PRUNED)
