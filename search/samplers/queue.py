"""What is tried next, from the study alone: whoever asks, and after whatever happened, gets the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState, create_trial

from ..selection import Leaders, finalists, leaders
from ..space.space import KEEP, POOL, Genotype, Space, genotype_key
from ..study.trials import TrialStore
from ..types import Candidate
from .budget import ExhaustedError

__all__ = ["TrialQueue", "starting_points", "unpooled_counterpart", "without_pools"]


def without_pools(choice: Genotype) -> dict[str, Any]:
    """The same drops without any pool."""
    return {name: KEEP if value == POOL else value for name, value in choice.items()}


def unpooled_counterpart(store: TrialStore, candidate: Candidate) -> dict[str, Any]:
    """What is the same as a candidate of the study but for its pools."""
    return store.space.normal(without_pools(store.choice_of(candidate.number)))


def starting_points(space: Space, sensitivity: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """The base itself, then a few ways to meet the budget by dropping alone.

    Blocks, one at least, are left out from the end, from the start, spread evenly, and once the base is trained those
    first that it misses least, until the budget is met. So there are always candidates that drop and
    don't pool.

    Args:
        space: the space, with its budgets.
        sensitivity: accuracy that the base loses without each block; None where it isn't known yet.
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

    First the base and a few candidates that only drop, which others may try while the base is trained; then, once the
    base is finished, what the study's sampler proposes. When a candidate with pools leads, the same without pools comes
    next, also beyond the number of trials, so that it is known what its pools bring; and at the end that of each
    finalist. A strided pool may save so much that without it the budget isn't kept: its like is then left out.

    Args:
        store: the trials; its study has a :class:`BudgetSampler`.
        trials: how many to try, the base included.
        keep_accuracy: as for :func:`leaders`.
        finalists: how many of the best will be trained by themselves after shared weights scored all.

    Attributes:
        exhausted: whether the sampler found no new candidate within the budgets.
    """

    def __init__(self, store: TrialStore, trials: int, keep_accuracy: float | None = None, finalists: int = 0) -> None:
        self.store, self.trials, self.keep_accuracy, self.finalists = store, trials, keep_accuracy, finalists
        self.exhausted = False

    def leaders(self) -> Leaders:
        """Who leads."""
        return leaders(self.store.candidates(), self.keep_accuracy, self.store.space.measure)

    def next(self) -> dict[str, Any] | None:
        """The next candidate; None where there is none for now."""
        store, keys = self.store, self.store.keys()
        for choice in starting_points(store.space, store.get("sensitivity")):
            if genotype_key(choice) not in keys and (len(keys) < self.trials or choice == store.space.choice()):
                return choice
        if not store.base_is_finished:
            # Who leads, and what the sampler learns, is measured against it.
            return None
        count = self.finalists if len(keys) >= self.trials else 0
        for candidate in finalists(store.candidates(), count, self.keep_accuracy, store.space.measure):
            if candidate.pools:
                twin = unpooled_counterpart(store, candidate)
                if genotype_key(twin) not in keys and store.space.excess(twin) <= 0:
                    return twin
        return None if len(keys) >= self.trials else self._proposed()

    def _proposed(self) -> dict[str, Any] | None:
        """What the sampler proposes, before there is a trial for it; see :meth:`TrialStore.claim`."""
        study, trial = self.store.study, create_trial(state=TrialState.RUNNING)
        space = study.sampler.infer_relative_search_space(study, trial)
        try:
            return study.sampler.sample_relative(study, trial, space)
        except ExhaustedError:
            self.exhausted = True
            return None
