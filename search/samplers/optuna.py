"""Candidates from one of Optuna's samplers, which learns what is over the budget."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseGASampler
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from ..space.space import Genotype, GenotypeKey, Space, genotype_key
from ..study.trials import distributions
from .base import Proposal, Proposer
from .registry import make_sampler

__all__ = ["OptunaProposer"]

# So many proposals in a row may be refused, over the budget or tried before, until the last is repaired.
_REFUSALS = 10


def _go_on() -> None:
    """Stop nothing."""


class OptunaProposer(Proposer):
    """Asks an Optuna sampler for candidates within the budgets.

    The sampler lives in memory. Candidates over a budget are told to it as infeasible and come no further. Where it
    insists on those, or on what was tried before, its last proposal is changed in a few places at random, and repaired:
    pools are taken away and blocks dropped until the budgets are met.

    Args:
        space: the search space, with its budgets.
        sampler: a name in :data:`SAMPLERS`.
        seed: seed of the sampler and of the repairs.
        objective: see :class:`Proposer`.
        keep_accuracy: see :class:`Proposer`.
    """

    def __init__(
        self,
        space: Space,
        sampler: str,
        seed: int,
        objective: str = "pareto",
        keep_accuracy: float | None = None,
    ) -> None:
        super().__init__(space, seed, objective, keep_accuracy)
        self.sampler = sampler
        self._distributions = distributions(self._repair.choices)
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [up, down] if objective == "pareto" else [up if keep_accuracy is None else down]
        self._study = optuna.create_study(directions=directions, sampler=make_sampler(sampler, seed))
        # A sampler with nothing left to propose stops the study, which raises where nothing runs it.
        self._study.stop = _go_on  # type: ignore[method-assign]
        self._open: dict[GenotypeKey, Trial] = {}
        self._generation = 0

    def propose(self, tried: Collection[GenotypeKey], number: int) -> Proposal | None:
        """Propose what the sampler does; see :meth:`Proposer.propose`."""
        seed = self._seed(number)
        self._study.sampler = make_sampler(self.sampler, seed)
        refused: list[list[Any]] = []
        choice: dict[str, Any] = {}
        for _ in range(_REFUSALS):
            self._choose_parents()
            trial = self._study.ask(self._distributions)
            choice = dict(trial.params)
            normal = self.space.normal(choice)
            new = self.space.excess(choice) <= 0 and genotype_key(normal) not in tried
            if new and normal == choice:
                self._open[genotype_key(normal)] = trial
            else:
                refused.append(list(choice.values()))
                self._tell_refused(trial, choice)
            if new:
                self.proposed.add(genotype_key(normal))
                return normal, refused
        for repaired in self._repair.variants(choice, random.Random(seed)):
            if genotype_key(repaired) not in tried:
                self.proposed.add(genotype_key(repaired))
                return repaired, refused
        return None

    def refuse(self, values: Sequence[Any]) -> None:
        """Tell the sampler again of a proposal that was refused in an earlier run: its values, in order."""
        choice = dict(zip(self._distributions, values, strict=True))
        self._tell_refused(self._asked(choice), choice)

    def _learn(self, choice: Genotype, accuracy: float | None, stopped: bool) -> None:
        # Of one that was stopped Optuna's samplers learn what it had by then.
        trial = self._open.pop(genotype_key(choice), None) or self._asked(choice)
        if accuracy is None:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        for name, value in self.space.constraints(choice).items():
            trial.set_constraint(name, value)
        if self.floor is not None:
            trial.set_constraint("accuracy", self.floor - accuracy)
        self._study.tell(trial, self._values(choice, accuracy))

    def _tell_refused(self, trial: Trial, choice: Genotype) -> None:
        if self.space.excess(choice) <= 0:
            # Tried already, or another's name: the sampler hears of that one, and once more would count it twice.
            self._study.tell(trial, state=TrialState.FAIL)
            return
        self.refused += 1
        for name, value in self.space.constraints(choice).items():
            trial.set_constraint(name, value)
        if self.keep_accuracy is not None:
            # Unknown, and beside the point.
            trial.set_constraint("accuracy", 0.0)
        # What an infeasible candidate would be worth is never looked at.
        self._study.tell(trial, self._values(choice, 0.0))

    def _asked(self, choice: Genotype) -> Trial:
        self._study.enqueue_trial(dict(choice))
        trial = self._study.ask(self._distributions)
        if isinstance(self._study.sampler, BaseGASampler):
            # Optuna gives a generation to its own proposals alone; what has none is never among the parents.
            trials = self._study.get_trials(deepcopy=False)
            self._study.sampler.get_trial_generation(self._study, trials[trial.number])
        return trial

    def _choose_parents(self) -> None:
        """Let a genetic sampler choose the parents of a generation before it needs them.

        Chosen on demand they would depend on when that is: in their order, and in NSGA-III by what is drawn.
        """
        sampler = self._study.sampler
        if not isinstance(sampler, BaseGASampler):
            return
        while len(sampler.get_population(self._study, self._generation)) >= (sampler.population_size or 1):
            self._generation += 1
            # Optuna keeps them for whoever asks later.
            chooser: Any = make_sampler(self.sampler, self._seed(self._generation))
            chooser.get_parent_population(self._study, self._generation)

    def _values(self, choice: Genotype, accuracy: float) -> list[float]:
        cost = self.space.cost(choice, self._measure)
        if self.objective == "pareto":
            return [accuracy, cost]
        return [accuracy if self.keep_accuracy is None else cost]
