"""Where candidates come from: what all that propose them have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ..space.repair import BudgetRepair
from ..space.space import Genotype, GenotypeKey, Space

__all__ = ["Proposal", "Proposer"]

Proposal = tuple[dict[str, Any], list[list[Any]]]


class Proposer(ABC):
    """Gives candidates within the budgets, and learns what came of them.

    What it proposes depends on the seed, on the number of the proposal and on what it was told, in that order, so a
    search that goes on from its record proposes what it would have proposed.

    Args:
        space: the search space, with its budgets.
        seed: seed of what is drawn.
        objective: ``pareto`` (accuracy against cost) or ``single``: accuracy, or where an accuracy is to be kept
            the cost.
        keep_accuracy: candidates more than so many points below the base are worth nothing; None for no such bound.

    Attributes:
        refused: how many proposals were over a budget.
        proposed: the keys of what was proposed.
        floor: the least accuracy in percent, once the base's is known; None for no such bound.
    """

    def __init__(self, space: Space, seed: int, objective: str = "pareto", keep_accuracy: float | None = None) -> None:
        self.space, self.seed, self.objective, self.keep_accuracy = space, seed, objective, keep_accuracy
        self.refused = 0
        self.proposed: set[GenotypeKey] = set()
        self.floor: float | None = None
        self._measure = space.measure
        self._repair = BudgetRepair(space)

    @abstractmethod
    def propose(self, tried: Collection[GenotypeKey], number: int) -> Proposal | None:
        """Propose a candidate within the budgets that was not tried before.

        Args:
            tried: the keys of all candidates that were tried or are being tried.
            number: how many those are.

        Returns:
            The candidate, and the proposals that were refused on the way (see :meth:`refuse`); None when no new
            candidate was found.
        """

    @abstractmethod
    def refuse(self, values: Sequence[Any]) -> None:
        """Learn again of a proposal that was refused in an earlier run: its values, in order."""

    def learn(self, choice: Genotype, accuracy: float | None, stopped: bool = False) -> None:
        """Learn what came of a candidate, proposed or not.

        Args:
            choice: the candidate.
            accuracy: its accuracy in percent; None where it failed.
            stopped: whether it was stopped early, and this is what it had by then.
        """
        if self.keep_accuracy is not None and self.floor is None and accuracy is not None:
            # The base comes first.
            self.floor = accuracy - self.keep_accuracy
        self._learn(choice, accuracy, stopped)

    @abstractmethod
    def _learn(self, choice: Genotype, accuracy: float | None, stopped: bool) -> None:
        """What a proposer of its kind makes of it."""

    def _seed(self, number: int) -> int:
        """The seed of a proposal."""
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
