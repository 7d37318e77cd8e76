"""Whatever a sampler proposes, made a candidate within the budgets that is new."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from ..space.repair import BudgetRepair
from ..space.space import Space, genotype_key
from ..study.trials import distributions, genotypes

__all__ = ["BudgetSampler", "ExhaustedError", "seed_of"]


class ExhaustedError(Exception):
    """No new candidate within the budgets was found."""


class BudgetSampler(BaseSampler):
    """A sampler for a space with budgets: what another one proposes, repaired.

    The whole genotype is proposed at once: that of the other sampler, changed until it keeps the budgets, and, where
    it was tried before, changed in a few places at random. So no trial of the study is over a budget, but for the base.
    What is drawn depends on the seed and on the trials of the study alone.

    Args:
        inner: proposes; its ``sample_relative`` gives the whole genotype.
        space: the space, with its budgets.
        seed: seed of the repairs.

    Example::

        study = optuna.create_study(direction="maximize")
        study.sampler = make_sampler("tpe", space, seed=0)
        trial = study.ask(distributions(space.choices()))
        study.tell(trial, accuracy_of(space.architecture(trial.params)))
    """

    def __init__(self, inner: BaseSampler, space: Space, seed: int) -> None:
        self.inner, self.space, self.seed = inner, space, seed
        self._repair = BudgetRepair(space)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space."""
        return distributions(self._repair.choices)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole genotype within the budgets that no trial of the study has.

        Raises:
            ExhaustedError: none was found.
        """
        tried = {genotype_key(other.params) for other in genotypes(study, self._repair.choices)}
        rng = random.Random(seed_of(self.seed, len(tried)))
        proposed = self.inner.sample_relative(study, trial, search_space)
        repaired = self._repair.repair(proposed, rng)
        if repaired is not None and genotype_key(repaired) not in tried:
            return repaired
        for variant in self._repair.variants(proposed, rng):
            if genotype_key(variant) not in tried:
                return variant
        raise ExhaustedError

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that is not of the space, by the other sampler."""
        return self.inner.sample_independent(study, trial, param_name, param_distribution)


def seed_of(seed: int, number: int) -> int:
    """The seed of one proposal: a search that goes on after a stop draws what it would have drawn.

    Args:
        seed: of the search.
        number: of trials before it.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
