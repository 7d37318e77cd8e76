"""Budgets of one measure, each for a model of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cp_vision.shared.errors import UserError

from ..config.budget_text import WrittenBudget, read_budgets
from ..space.budget import format_cost
from ..types import Measure
from .front import Front
from .option import Option

__all__ = ["Budget", "check_reachable", "cost_in_words", "least_cost", "next_saving", "read_sweep"]

# Latencies are whole nanoseconds here, so that sums of them are exact.
_NANOSECONDS = 1e6
# What costs more as a whole than its parts is chosen anew to save more, by so much of the budget at least.
_STEPS = 200


class Budget(NamedTuple):
    """One budget.

    Attributes:
        text: as it was given.
        written: what it says.
    """

    text: str
    written: WrittenBudget

    @property
    def measure(self) -> Measure:
        """What it is of."""
        return self.written.measure

    def limit(self, base: Mapping[Measure, int]) -> int:
        """In MACs, parameters or nanoseconds, from what the base costs."""
        number, unit = self.written.number, self.written.unit
        if unit is None:
            return int(number * base[self.measure])
        return int(number * unit * (_NANOSECONDS if self.measure == "latency" else 1))


def read_sweep(budget: str | Sequence[str]) -> list[Budget]:
    """Read budgets of one measure.

    Raises:
        UserError: neither text nor a list of it, one that can't be read, one twice, or several measures.
    """
    texts: Any = budget.split(",") if isinstance(budget, str) else budget
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"budget {budget!r} must be text or a list of text, such as '0.6x' or ['0.4x', '0.6x']")
    texts = [text.strip() for text in texts]
    found = [Budget(text, read_budgets(text)[0]) for text in texts]
    if len(measures := sorted({one.measure for one in found})) > 1:
        raise UserError(f"budget {budget!r} is of {' and '.join(measures)}; give budgets of one measure")
    # In whatever words: 0.6x is 0.60x.
    if len({(one.written.number, one.written.unit) for one in found}) < len(found):
        raise UserError(f"budget {budget!r} names one budget twice; name each once")
    return found


def least_cost(measure: Measure, base: Mapping[Measure, int], options: Sequence[Option], blocks: int) -> int:
    """The least that a model of these options costs."""
    return base[measure] - Front(options, blocks, measure).most


def check_reachable(
    budgets: Sequence[Budget], base: Mapping[Measure, int], options: Sequence[Option], blocks: int
) -> None:
    """Raise a UserError for a budget that can't be met.

    Args:
        budgets: of one measure.
        base: what the base costs.
        options: all there are; scores don't matter.
        blocks: how many the base has.
    """
    measure = budgets[0].measure
    least = least_cost(measure, base, options, blocks)
    for budget in budgets:
        if (limit := budget.limit(base)) < least:
            raise UserError(
                f"budget {budget.text!r} ({cost_in_words(measure, limit)}) is below the smallest that can be met, "
                f"{least / base[measure] + 0.0005:.3f}x ({cost_in_words(measure, least)})"
            )


def next_saving(saved: int, cost: int, limit: int) -> int:
    """What to save where a choice that should save so much costs more, as a whole, than the limit."""
    return saved + max(cost - limit, limit // _STEPS)


def cost_in_words(measure: Measure, cost: float) -> str:
    """A cost for people: ``2.46G MACs``, ``12.3 ms``.

    Args:
        measure: of what.
        cost: MACs, parameters or nanoseconds.
    """
    return format_cost(measure, cost / _NANOSECONDS if measure == "latency" else cost)
