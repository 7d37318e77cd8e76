"""Optuna's samplers, told what a candidate costs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..space.space import Space
from ..study.trials import genotypes
from .budget import seed_of

__all__ = ["OptunaSampler", "accuracy_floor"]

# How often a sampler is asked for a candidate within the budgets before one is repaired, which costs it pools.
_ASKED = 10


class OptunaSampler(BaseSampler):
    """One of Optuna's samplers on a copy of the study that has the cost in it.

    The study's one objective is accuracy. For each proposal the sampler is made anew, with a seed of its own, and asked
    in a study in memory with the same trials, whose objectives are those of the search: accuracy and cost, one of
    them, or accuracy as a constraint. What was stopped early is there as pruned where accuracy is the one objective,
    else as failed: its accuracy is of fewer epochs. What others are trying is there as running.

    Args:
        factory: makes the sampler of a seed.
        space: the space.
        seed: seed of the search.
        objective: ``single`` (accuracy, or with ``keep_accuracy`` cost) or ``pareto`` (accuracy and cost).
        keep_accuracy: how many points below the base's accuracy are allowed; None for no such bound.
    """

    def __init__(
        self,
        factory: Callable[[int], BaseSampler],
        space: Space,
        seed: int,
        objective: str = "single",
        keep_accuracy: float | None = None,
    ) -> None:
        self.factory, self.space, self.seed = factory, space, seed
        self.objective, self.keep_accuracy = objective, keep_accuracy

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing by itself: it is asked for a whole genotype; see :class:`BudgetSampler`."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What the sampler proposes for these parameters, within the budgets if ten proposals hold such a one."""
        trials = genotypes(study, search_space)
        sampler = self._made(len(trials))
        view = optuna.create_study(directions=self._directions(), sampler=sampler)
        view.add_trials(self._trials(trials, sampler))
        # What is over a budget stays in the copy as running, so it is not asked for again.
        for _ in range(_ASKED):
            proposed = view.ask(search_space).params
            if self.space.excess(proposed) <= 0:
                break
        return proposed

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A single parameter, by the sampler itself."""
        return self._made(trial.number).sample_independent(study, trial, param_name, param_distribution)

    def _made(self, number: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self.factory(seed_of(self.seed, number))

    def _directions(self) -> list[StudyDirection]:
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        return [up, down] if self.objective == "pareto" else [up if self.keep_accuracy is None else down]

    def _trials(self, trials: Sequence[FrozenTrial], sampler: BaseSampler) -> list[FrozenTrial]:
        """The trials with the objectives and constraints of the search."""
        floor, found, complete = accuracy_floor(trials, self.space, self.keep_accuracy), [], 0
        for trial in trials:
            known: dict[str, Any] = {"state": TrialState.FAIL}
            if trial.state == TrialState.COMPLETE:
                constraints = self.space.constraints(trial.params)
                if floor is not None:
                    constraints["accuracy"] = floor - trial.values[0]
                known = {"values": self._values(trial), "constraints": constraints}
                if isinstance(sampler, BaseGASampler):
                    # A generation is as many as its population: by their order, whoever proposed them.
                    generation = complete // (sampler.population_size or 1)
                    known["system_attrs"] = {sampler._get_generation_key(): generation}
                complete += 1
            elif trial.state == TrialState.PRUNED and self.objective == "single" and self.keep_accuracy is None:
                # Optuna's samplers know how to learn from these where there is one objective.
                known = {"state": TrialState.PRUNED, "intermediate_values": trial.intermediate_values}
            elif not trial.state.is_finished():
                known = {"state": TrialState.RUNNING}
            found.append(create_trial(params=trial.params, distributions=trial.distributions, **known))
        return found

    def _values(self, trial: FrozenTrial) -> list[float]:
        accuracy, cost = trial.values[0], self.space.cost(trial.params, self.space.measure)
        if self.objective == "pareto":
            return [accuracy, cost]
        return [accuracy if self.keep_accuracy is None else cost]


def accuracy_floor(trials: Sequence[FrozenTrial], space: Space, keep_accuracy: float | None) -> float | None:
    """The least accuracy in percent that is kept; None where there is none, or the base has no accuracy yet."""
    if keep_accuracy is None:
        return None
    base = next((t for t in trials if t.state == TrialState.COMPLETE and t.params == space.choice()), None)
    return None if base is None else base.values[0] - keep_accuracy
