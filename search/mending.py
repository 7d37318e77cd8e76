"""Candidates within the budgets by mending those that are not: in microseconds, without a sampler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from .space import DROP, KEEP, POOL, Choice, Space

__all__ = ["Chance", "Mender"]

_VARIANTS = 1000


class Chance(Protocol):
    """What is drawn from: a ``random.Random``, or Python's module ``random`` itself."""

    def random(self) -> float:
        """A number from 0 to 1."""

    def shuffle(self, x: list[Any]) -> None:
        """Put a list into some order."""


class Mender:
    """Makes candidates that keep the budgets of a space.

    Args:
        space: the space, with its budgets.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.choices = space, space.choices()

    def mend(self, choice: Choice, chance: Chance) -> dict[str, Any] | None:
        """A candidate close to a choice that keeps the budgets: pools are taken away, then blocks left out.

        Args:
            choice: what is to be mended.
            chance: in what order, drawn at random.

        Returns:
            The candidate, or None where these steps lead to none.
        """
        mended, order = dict(choice), list(self.space.names)
        for taken, instead in ((DROP, KEEP), (POOL, KEEP), (KEEP, DROP)):
            chance.shuffle(order)
            for name in order:
                found = self.space.constraints(mended)
                if max(found.values(), default=0.0) <= 0:
                    return self.space.normal(mended)
                # Blocks come back only where too many are gone.
                if taken == DROP and max(found.get("drops", 0.0), found.get("blocks", 0.0)) <= 0:
                    break
                if mended[name] == taken and instead in self.choices[name]:
                    mended[name] = instead
        return self.space.normal(mended) if self.space.excess(mended) <= 0 else None

    def draw(self, chance: Chance) -> dict[str, Any] | None:
        """A candidate within the budgets at random, each value with a share of its own, so that all depths come up."""
        choice = {}
        for name, values in self.choices.items():
            choice[name] = values[int(chance.random() * len(values))]
        keep, drop = chance.random(), chance.random()
        for name in self.space.names:
            if chance.random() < keep:
                choice[name] = KEEP
            elif DROP in self.choices[name] and chance.random() < drop:
                choice[name] = DROP
        return self.mend(choice, chance)

    def variants(self, choice: Choice, chance: Chance) -> Iterator[dict[str, Any]]:
        """Candidates within the budgets that wander away from a choice, a bounded number of them."""
        wandering = dict(choice)
        for _ in range(_VARIANTS):
            for name, values in self.choices.items():
                if chance.random() < 0.2:
                    wandering[name] = values[int(chance.random() * len(values))]
            mended = self.mend(wandering, chance)
            if mended is not None:
                yield mended
