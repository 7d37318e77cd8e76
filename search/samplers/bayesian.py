"""Where candidates come from by default: the one that promises most, by a model of accuracy and by its known cost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ..space.space import Genotype, GenotypeKey, Space, genotype_key
from .base import Proposal, Proposer
from .optuna import OptunaProposer
from .surrogate import Surrogate

__all__ = ["GuidedProposer", "make_sampler_of"]

Array = NDArray[np.float64]

# Finished candidates before the model is asked, and how many it is asked about.
_AT_RANDOM, _DRAWN, _PARENTS, _NEAR = 6, 300, 10, 30


class GuidedProposer(Proposer):
    """Proposes what would add most to the front if it were a standard deviation better than :class:`Surrogate` expects.

    Where an accuracy is to be kept it proposes what saves most, times the probability that it keeps it.
    What a candidate costs is known exactly, so accuracy alone is learned, and what is drawn keeps the budgets from
    the start. Looked at are candidates drawn at random, and changes of the best so far. Given the same finished
    candidates and the same number it proposes the same.

    Args:
        space: the search space, with its budgets.
        seed: seed of what is drawn.
        objective: see :class:`Proposer`.
        keep_accuracy: see :class:`Proposer`.

    Source: ours; the model is that of Baptista and Poloczek (ICML 2018), the gain the hypervolume improvement of
    Emmerich et al., *Single- and multiobjective evolutionary optimization assisted by Gaussian random field
    metamodels*, 2006, of an upper confidence bound; with an accuracy to keep, the constrained improvement of Gardner et
    al., *Bayesian optimization with inequality constraints*, ICML 2014.
    """

    def __init__(self, space: Space, seed: int, objective: str = "pareto", keep_accuracy: float | None = None) -> None:
        super().__init__(space, seed, objective, keep_accuracy)
        self._most = space.limits[0].most if space.limits else space.most("macs")
        self._surrogate = Surrogate(self._repair.choices)
        self._scores: dict[GenotypeKey, float] = {}
        self._stopped: set[GenotypeKey] = set()
        self._failed: set[GenotypeKey] = set()

    def propose(self, tried: Collection[GenotypeKey], number: int) -> Proposal | None:
        """Propose a candidate within the budgets that was not tried before; see :meth:`Proposer.propose`."""
        rng = random.Random(self._seed(number))
        known = len(self._scores) + len(self._stopped)
        guess = known < _AT_RANDOM or len(set(self._scores.values())) < 2
        found = self._candidates(tried, rng, 1 if guess else _DRAWN)
        if not found:
            # Few are left: look longer.
            start = self._repair.draw(rng) or self.space.choice()
            new = (choice for choice in self._repair.variants(start, rng) if genotype_key(choice) not in tried)
            found = list(itertools.islice(new, 1))
        if not found:
            return None
        best = found[0] if guess or len(found) == 1 else found[self._most_promising(found, tried)]
        self.proposed.add(genotype_key(best))
        return best, []

    def refuse(self, values: Sequence[Any]) -> None:
        """Nothing to learn from proposals over a budget."""

    def _learn(self, choice: Genotype, accuracy: float | None, stopped: bool) -> None:
        key = genotype_key(choice)
        if accuracy is None:
            self._failed.add(key)
        elif stopped:
            self._stopped.add(key)
        else:
            self._scores[key] = accuracy

    def _candidates(self, tried: Collection[GenotypeKey], rng: random.Random, drawn: int) -> list[dict[str, Any]]:
        """Candidates within the budgets that were not tried, each once."""
        found: dict[GenotypeKey, dict[str, Any]] = {}

        def add(choice: dict[str, Any] | None) -> None:
            if choice is not None and genotype_key(choice) not in tried:
                found.setdefault(genotype_key(choice), choice)

        for _ in range(drawn):
            add(self._repair.draw(rng))
        if drawn > 1:
            for parent in sorted(self._scores, key=lambda key: -self._scores[key])[:_PARENTS]:
                for _ in range(_NEAR):
                    child = dict(parent)
                    # One site is changed, or two, or three.
                    for name in rng.sample(list(child), min(len(child), rng.randint(1, 3))):
                        child[name] = rng.choice(self._repair.choices[name])
                    add(self._repair.repair(child, rng))
        return list(found.values())

    def _most_promising(self, found: list[dict[str, Any]], tried: Collection[GenotypeKey]) -> int:
        # What one that was stopped would have reached is not known, but that it was behind: it counts as the worst.
        worst = min(self._scores.values())
        learned = {**self._scores, **dict.fromkeys(self._stopped, worst)}
        pending = [dict(key) for key in sorted(tried, key=repr) if key not in learned and key not in self._failed]
        self._surrogate.fit([dict(key) for key in learned], list(learned.values()), pending)
        expected, deviation = self._surrogate.predict(found)
        upper = expected + deviation
        costs = np.array([self.space.cost(choice, self._measure) for choice in found])
        if self.floor is not None:
            kept = [key for key, accuracy in self._scores.items() if accuracy >= self.floor]
            saved = min(self.space.cost(dict(key), self._measure) for key in kept) - costs if kept else -costs
            gains = np.maximum(saved, 0.0) * ndtr((expected - self.floor) / deviation)
        elif self.objective == "single":
            gains = np.zeros(1)
        else:
            gains = self._gains(costs, upper)
        return int(np.argmax(gains if gains.max() > 0 else upper))

    def _gains(self, costs: Array, upper: Array) -> Array:
        """Area between cost and accuracy that each candidate would add to that of the front."""
        # A hair below the worst, so that even that one is worth something.
        low, points = min(min(self._scores.values()), float(upper.min())) - 0.1, []
        for key, accuracy in self._scores.items():
            choice = dict(key)
            if self.space.excess(choice) <= 0:
                points.append((self.space.cost(choice, self._measure), accuracy))
        edges, levels, best = [-np.inf], [low], low
        for cost, accuracy in sorted(points):
            best = max(best, accuracy)
            edges.append(cost)
            levels.append(best)
        left, right = np.array(edges), np.array([*edges[1:], self._most])
        widths = np.clip(np.minimum(right, self._most) - np.maximum(left, costs[:, None]), 0.0, None)
        gains: Array = (widths * np.clip(upper[:, None] - np.array(levels), 0.0, None)).sum(1)
        return gains


def make_sampler_of(
    space: Space, sampler: str, seed: int, objective: str = "pareto", keep_accuracy: float | None = None
) -> Proposer:
    """Where candidates come from, by the sampler's name."""
    if sampler == "surrogate":
        return GuidedProposer(space, seed, objective, keep_accuracy)
    return OptunaProposer(space, sampler, seed, objective, keep_accuracy)
