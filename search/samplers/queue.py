"""What is tried next, from the study alone: whoever asks, and after whatever happened, gets the same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState, create_trial

from ..selection import Leaders, finalists, leaders
from ..space.space import KEEP, POOL, Genotype, GenotypeKey, Space, genotype_key
from ..study.trials import TrialStore
from .budget import ExhaustedError

__all__ = ["NextTrial", "TrialQueue", "starting_points", "without_pools"]


def without_pools(choice: Genotype) -> dict[str, Any]:
    """The same drops without any pool."""
    return {name: KEEP if value == POOL else value for name, value in choice.items()}


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


@dataclass(frozen=True)
class NextTrial:
    """What is tried next.

    Attributes:
        choice: the candidate.
        seed: of a further training of a finalist; None for a candidate that wasn't scored yet.
    """

    choice: dict[str, Any]
    seed: int | None = None


class TrialQueue:
    """Decides what comes next.

    First the base and a few candidates that only drop, which others may try while the base is trained. Once the base is
    finished, what the study's sampler proposes, and beyond the number of trials the counterparts without pools of the
    finalists that pool, so that it is known what pools bring. A strided pool may save so much that without it the
    budget isn't kept: its counterpart is then left out. In the end the finalists are trained with further seeds; so is
    the base while others are still being scored, and before all others where its accuracy is to be kept.

    Args:
        store: the trials; its study has a :class:`BudgetSampler`.
        trials: how many to try, the base included.
        keep_accuracy: as for :func:`leaders`.
        finalists: how many of the best are finalists.
        seeds: of their further trainings; empty for none.

    Attributes:
        exhausted: whether the sampler found no new candidate within the budgets.
    """

    def __init__(
        self,
        store: TrialStore,
        trials: int,
        keep_accuracy: float | None = None,
        finalists: int = 1,
        seeds: Sequence[int] = (),
    ) -> None:
        self.store, self.trials, self.keep_accuracy, self.finalists = store, trials, keep_accuracy, finalists
        self.seeds, self.exhausted = tuple(seeds), False

    def leaders(self) -> Leaders:
        """Who leads."""
        return leaders(self.store.candidates(), self.keep_accuracy, self.store.space.measure)

    def next(self) -> NextTrial | None:
        """The next candidate, or the next training of a finalist; None where there is none for now."""
        store, keys = self.store, self.store.keys()
        for choice in starting_points(store.space, store.get("sensitivity")):
            if genotype_key(choice) not in keys and (len(keys) < self.trials or choice == store.space.choice()):
                return NextTrial(choice)
        if not store.base_is_finished:
            # Who leads, and what the sampler learns, is measured against it.
            return None
        if self.keep_accuracy is not None and (again := self._again([store.space.choice()])) is not None:
            return again
        if len(keys) < self.trials and (proposed := self._proposed()) is not None:
            return NextTrial(proposed)
        return self._finalist(keys)

    def _finalist(self, keys: Mapping[GenotypeKey, int]) -> NextTrial | None:
        """What is still to be known of the finalists."""
        store, space = self.store, self.store.space
        if any(not trial.state.is_finished() for trial in store.trials):
            # Who the finalists are isn't known before all were scored; the base is one of them.
            return self._again([space.choice()])
        seeds = len(self.seeds) + store.trained
        found = finalists(store.candidates(), self.finalists, self.keep_accuracy, space.measure, seeds)
        choices = [store.choice_of(c.number) for c in found]
        for choice in choices:
            counterpart = space.normal(without_pools(choice))
            if genotype_key(counterpart) not in keys and space.excess(counterpart) <= 0:
                return NextTrial(counterpart)
        return self._again(choices)

    def _again(self, choices: Sequence[dict[str, Any]]) -> NextTrial | None:
        """A further training of one of these, each with one seed before any with the next."""
        known = self.store.repeated()
        every = (NextTrial(choice, seed) for seed in self.seeds for choice in choices)
        return next((again for again in every if (genotype_key(again.choice), again.seed) not in known), None)

    def _proposed(self) -> dict[str, Any] | None:
        """What the sampler proposes, before there is a trial for it; see :meth:`TrialStore.claim`."""
        study, trial = self.store.study, create_trial(state=TrialState.RUNNING)
        space = study.sampler.infer_relative_search_space(study, trial)
        try:
            return study.sampler.sample_relative(study, trial, space)
        except ExhaustedError:
            self.exhausted = True
            return None
