"""What a search has found: plain values that the CSV, the report and the command line all read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["BlockCost", "Candidate", "Results", "State", "pareto_front"]

State = Literal["complete", "failed"]


@dataclass(frozen=True)
class BlockCost:
    """One block of the base and what it costs, in MACs for one image.

    Attributes:
        name: module path in the base (``blocks.5``, ``layer3.1``).
        macs: cost of the block itself.
        pool_macs: cost of a pool at that block.
        droppable: whether the block may be left out.
    """

    name: str
    macs: int
    pool_macs: int
    droppable: bool


@dataclass(frozen=True)
class Candidate:
    """One trained architecture.

    Attributes:
        number: trial number in the study; the base is number 0.
        pools: sites with a pool.
        drops: blocks left out.
        macs: MACs for one image.
        params: number of parameters.
        accuracy: top-1 on the validation split, percent; None unless complete.
        state: ``complete`` or ``failed``.
        reason: why it failed, in one line; empty when complete.
        seconds: wall time of its training.
    """

    number: int
    pools: tuple[str, ...]
    drops: tuple[str, ...]
    macs: int
    params: int
    accuracy: float | None
    state: State = "complete"
    reason: str = ""
    seconds: float = 0.0

    @property
    def is_base(self) -> bool:
        """True for the base itself: no pools, no drops."""
        return not self.pools and not self.drops

    @property
    def drops_only(self) -> bool:
        """True for an architecture that leaves blocks out and pools nowhere."""
        return bool(self.drops) and not self.pools


@dataclass(frozen=True)
class Results:
    """Everything that the report shows.

    Attributes:
        base: timm name of the base model.
        dataset: name of the data set.
        recipe: name of the recipe that trained every candidate.
        command: the command that makes this study again.
        seed: seed of the search.
        budget: the budget as the user wrote it (``0.7x``).
        budget_macs: the budget in MACs.
        base_macs: cost of the whole base in MACs.
        blocks: the base's blocks in order.
        candidates: every trained architecture by number; the base comes first.
        best: number of the winner; None while nothing within the budget is complete.
        best_drops_only: number of the best architecture without pools that leaves blocks out.
        test_accuracy: top-1 on the test split, percent, by candidate number; filled at the very end,
            for the winner and the baselines alone.
    """

    base: str
    dataset: str
    recipe: str
    command: str
    seed: int
    budget: str
    budget_macs: int
    base_macs: int
    blocks: tuple[BlockCost, ...]
    candidates: tuple[Candidate, ...]
    best: int | None = None
    best_drops_only: int | None = None
    test_accuracy: dict[int, float] = field(default_factory=dict)

    @property
    def front(self) -> tuple[int, ...]:
        """Numbers of the candidates that no other beats in both accuracy and MACs, cheapest first."""
        return pareto_front(self.candidates)


def pareto_front(candidates: Sequence[Candidate]) -> tuple[int, ...]:
    """Numbers of the complete candidates that none beats in both accuracy and MACs, cheapest first.

    Of candidates that tie in both, the one with the lowest number stands for all.
    """
    front: list[int] = []
    best = float("-inf")
    complete = [(c.macs, -c.accuracy, c.number) for c in candidates if c.accuracy is not None]
    for _, negative_accuracy, number in sorted(complete):
        if -negative_accuracy > best:
            best = -negative_accuracy
            front.append(number)
    return tuple(front)
