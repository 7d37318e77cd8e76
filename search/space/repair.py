"""Candidates within the budgets, by repairing those that are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from .space import DROP, KEEP, POOL, Genotype, Space

__all__ = ["BudgetRepair", "Random"]

_VARIANTS = 1000


class Random(Protocol):
    """What is drawn from: a ``random.Random``, or Python's module ``random`` itself."""

    def random(self) -> float:
        """A number from 0 to 1."""

    def shuffle(self, x: list[Any]) -> None:
        """Put a list into some order."""


class BudgetRepair:
    """Makes candidates that keep the budgets of a space.

    Args:
        space: the space, with its budgets.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.choices = space, space.choices()

    def repair(self, choice: Genotype, rng: Random) -> dict[str, Any] | None:
        """A candidate close to a choice that keeps the budgets.

        Where too many blocks are gone some come back, and where there are too many pools some go. Then either pools
        are taken away and blocks left out, or the other way round: pools cost so little that they would never stay
        under a tight budget if they always went first.

        Args:
            choice: what is to be repaired.
            rng: which way, and in what order, drawn at random.

        Returns:
            The candidate, or None where these steps lead to none.
        """
        repaired, order = dict(choice), list(self.space.names)
        if self.space.excess(repaired) > 0:
            costs = [limit.measure for limit in self.space.limits]
            self._exchange(repaired, order, DROP, KEEP, ("drops", "blocks"), rng)
            self._exchange(repaired, order, POOL, KEEP, ("pools",), rng)
            fewer_pools_first = rng.random() < 0.5
            if fewer_pools_first:
                self._exchange(repaired, order, POOL, KEEP, costs, rng)
            self._exchange(repaired, order, KEEP, DROP, costs, rng)
            if not fewer_pools_first:
                self._exchange(repaired, order, POOL, KEEP, costs, rng)
                self._exchange(repaired, order, KEEP, DROP, costs, rng)
            if self.space.excess(repaired) > 0:
                return None
        return self.space.normal(repaired)

    def _exchange(
        self,
        repaired: dict[str, Any],
        order: list[str],
        taken: str,
        instead: str,
        bounds: Sequence[str],
        rng: Random,
    ) -> None:
        """Put one value in another's place, site by site in a random order, until these bounds are kept."""

        def over(names: Sequence[str]) -> bool:
            found = self.space.constraints(repaired)
            return any(found.get(name, 0.0) > 0 for name in names)

        if not over(bounds):
            return
        rng.shuffle(order)
        for name in order:
            if repaired[name] == taken and instead in self.choices[name]:
                repaired[name] = instead
                if instead == DROP and over(("drops", "blocks")):
                    repaired[name] = taken
                    return
                if not over(bounds):
                    return

    def draw(self, rng: Random) -> dict[str, Any] | None:
        """A candidate within the budgets at random, each value with a share of its own, so that all depths come up."""
        choice = {}
        for name, values in self.choices.items():
            choice[name] = values[int(rng.random() * len(values))]
        keep, drop = rng.random(), rng.random()
        for name in self.space.names:
            if rng.random() < keep:
                choice[name] = KEEP
            elif DROP in self.choices[name] and rng.random() < drop:
                choice[name] = DROP
        return self.repair(choice, rng)

    def variants(self, choice: Genotype, rng: Random) -> Iterator[dict[str, Any]]:
        """Candidates within the budgets that wander away from a choice, a bounded number of them."""
        wandering = dict(choice)
        for _ in range(_VARIANTS):
            for name, values in self.choices.items():
                if rng.random() < 0.2:
                    wandering[name] = values[int(rng.random() * len(values))]
            repaired = self.repair(wandering, rng)
            if repaired is not None:
                yield repaired
