"""What is told how a search goes on."""

from __future__ import annotations

from collections.abc import Callable

from .selection import Leaders
from .space.space import Genotype
from .types import Candidate

__all__ = ["Observer"]


class Observer:
    """Is told how a search goes on. This one does nothing with it."""

    def on_begin(self, finished: int) -> None:
        """The search begins, with so many candidates in the record."""

    def on_phase(self, name: str, parts: int) -> None:
        """Something other than trying candidates begins, in so many parts.

        Args:
            name: ``shared weights``, whose parts are epochs.
            parts: how many there are.
        """

    def on_part(self, name: str, done: float) -> None:
        """So many parts of it are done; epochs in fractions, too."""

    def on_start(self, choice: Genotype, seed: int | None = None) -> Callable[[int, int, float], None]:
        """A candidate is about to be tried, or a finalist trained with a further seed.

        Returns what to call after each of its epochs, with its number from 1, the number of epochs and the mean loss.
        """
        return lambda epoch, epochs, loss: None

    def on_finish(self, candidate: Candidate, now: Leaders) -> None:
        """A candidate was tried or has failed; ``now`` is who leads by then."""

    def on_wait(self, running: int) -> None:
        """There is nothing to do until others finish the candidates that they run, so many of them."""
