"""Where candidates come from by default: the one that promises most, by a model of accuracy and by its known cost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from .mending import Mender
from .proposals import Proposal, Proposer, Proposes
from .samplers import SURROGATE, check_sampler
from .space import Choice, Key, Space, key_of
from .surrogate import Surrogate

__all__ = ["GuidedProposer", "make_proposer"]

Array = NDArray[np.float64]

# Finished candidates before the model is asked, and how many it is asked about.
_AT_RANDOM, _DRAWN, _PARENTS, _NEAR = 6, 300, 10, 30


class GuidedProposer:
    """Proposes what would add most to the front if it were a standard deviation better than :class:`Surrogate` expects.

    Where an accuracy is to be kept it proposes what saves most, times the probability that it keeps it.
    What a candidate costs is known exactly, so accuracy alone is learned, and what is drawn keeps the budgets from
    the start. Looked at are candidates drawn at random, and changes of the best so far. Given the same finished
    candidates and the same number it proposes the same.

    Args:
        space: the search space, with its budgets.
        seed: seed of what is drawn.
        objective: ``pareto`` (accuracy against cost) or ``single`` (accuracy alone).
        keep_accuracy: candidates more than so many points below the base are worth nothing; None for no such bound.

    Attributes:
        refused: proposals over a budget: there are none.
        proposed: the keys of what was proposed.

    Source: ours; the model is that of Baptista and Poloczek (ICML 2018), the gain the hypervolume improvement of
    Emmerich et al., *Single- and multiobjective evolutionary optimization assisted by Gaussian random field
    metamodels*, 2006, of an upper confidence bound; with an accuracy to keep, the constrained improvement of Gardner et
    al., *Bayesian optimization with inequality constraints*, ICML 2014.
    """

    def __init__(self, space: Space, seed: int, objective: str = "pareto", keep_accuracy: float | None = None) -> None:
        self.space, self.seed, self.objective, self.keep_accuracy = space, seed, objective, keep_accuracy
        self.refused = 0
        self.proposed: set[Key] = set()
        self._measure = space.limits[0].measure if space.limits else "macs"
        self._most = space.limits[0].most if space.limits else space.most("macs")
        self._mender = Mender(space)
        self._surrogate = Surrogate(self._mender.choices)
        self._floor: float | None = None
        self._known: dict[Key, float | None] = {}

    def propose(self, tried: Collection[Key], number: int) -> Proposal | None:
        """Propose a candidate within the budgets that was not tried before; see :meth:`Proposer.propose`."""
        chance = random.Random(int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
        scores = {key: accuracy for key, accuracy in self._known.items() if accuracy is not None}
        guess = len(scores) < _AT_RANDOM or len(set(scores.values())) < 2
        found = self._candidates(tried, scores, chance, 1 if guess else _DRAWN)
        if not found:
            # Few are left: look longer.
            start = self._mender.draw(chance) or self.space.choice()
            new = (choice for choice in self._mender.variants(start, chance) if key_of(choice) not in tried)
            found = list(itertools.islice(new, 1))
        if not found:
            return None
        best = found[0] if guess or len(found) == 1 else found[self._most_promising(found, tried, scores)]
        self.proposed.add(key_of(best))
        return best, []

    def refuse(self, values: Sequence[Any]) -> None:
        """Nothing to learn from proposals over a budget."""

    def learn(self, choice: Choice, accuracy: float | None) -> None:
        """Learn what came of a candidate; see :meth:`Proposer.learn`."""
        if self.keep_accuracy is not None and self._floor is None and accuracy is not None:
            # The base comes first.
            self._floor = accuracy - self.keep_accuracy
        self._known[key_of(choice)] = accuracy

    def _candidates(
        self, tried: Collection[Key], scores: dict[Key, float], chance: random.Random, drawn: int
    ) -> list[dict[str, Any]]:
        """Candidates within the budgets that were not tried, each once."""
        found: dict[Key, dict[str, Any]] = {}

        def add(choice: dict[str, Any] | None) -> None:
            if choice is not None and key_of(choice) not in tried:
                found.setdefault(key_of(choice), choice)

        for _ in range(drawn):
            add(self._mender.draw(chance))
        if drawn > 1:
            for parent in sorted(scores, key=lambda key: -scores[key])[:_PARENTS]:
                for _ in range(_NEAR):
                    child = dict(parent)
                    # One site is changed, or two, or three.
                    for name in chance.sample(list(child), min(len(child), chance.randint(1, 3))):
                        child[name] = chance.choice(self._mender.choices[name])
                    add(self._mender.mend(child, chance))
        return list(found.values())

    def _most_promising(self, found: list[dict[str, Any]], tried: Collection[Key], scores: dict[Key, float]) -> int:
        pending = [dict(key) for key in sorted(tried, key=repr) if key not in self._known]
        self._surrogate.fit([dict(key) for key in scores], list(scores.values()), pending)
        expected, deviation = self._surrogate.predict(found)
        upper = expected + deviation
        costs = np.array([self.space.cost(choice, self._measure) for choice in found])
        if self._floor is not None:
            kept = [key for key, accuracy in scores.items() if accuracy >= self._floor]
            saved = min(self.space.cost(dict(key), self._measure) for key in kept) - costs if kept else -costs
            gains = np.maximum(saved, 0.0) * ndtr((expected - self._floor) / deviation)
        elif self.objective == "single":
            gains = np.zeros(1)
        else:
            gains = self._gains(costs, upper, scores)
        return int(np.argmax(gains if gains.max() > 0 else upper))

    def _gains(self, costs: Array, upper: Array, scores: dict[Key, float]) -> Array:
        """Area between cost and accuracy that each candidate would add to that of the front."""
        # A hair below the worst, so that even that one is worth something.
        low, points = min(min(scores.values()), float(upper.min())) - 0.1, []
        for key, accuracy in scores.items():
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


def make_proposer(
    space: Space, sampler: str, seed: int, objective: str = "pareto", keep_accuracy: float | None = None
) -> Proposes:
    """Where candidates come from, by the sampler's name.

    Raises:
        UserError: an unknown sampler.
    """
    check_sampler(sampler)
    if sampler == SURROGATE:
        return GuidedProposer(space, seed, objective, keep_accuracy)
    return Proposer(space, sampler, seed, objective, keep_accuracy)
