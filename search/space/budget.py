"""Budgets against what the base costs: MACs, parameters or latency, absolute or as a share of the base's."""

from __future__ import annotations

from collections.abc import Mapping

from cp_vision.cost.macs import format_macs
from cp_vision.shared.errors import UserError

from ..config.budget_text import read_budgets
from ..types import Limit, Measure
from .space import Space

__all__ = ["check_reachable", "format_cost", "measures_of", "parse_budgets"]


def measures_of(text: str) -> tuple[Measure, ...]:
    """What a budget is of, in its order; raises UserError as :func:`parse_budgets`."""
    return tuple(written.measure for written in read_budgets(text))


def parse_budgets(text: str, base: Mapping[Measure, float]) -> tuple[Limit, ...]:
    """Read one or several budgets.

    Args:
        text: separated by commas, each a share of the base's cost (``0.7x``) or a number (MACs: ``2.9G``, ``35M``;
            ``params=12M``; ``latency=15ms``, or in ``us`` or ``s``). One without a name is of MACs.
        base: what the base costs, in MACs, parameters and milliseconds.

    Returns:
        The budgets; counts are rounded down.

    Raises:
        UserError: none of these, not above zero, or two budgets of one measure.
        KeyError: ``base`` lacks a measure that has a budget.
    """
    limits = []
    for measure, value, number, unit in read_budgets(text):
        most = number * (base[measure] if unit is None else unit)
        limits.append(Limit(measure, value, most if measure == "latency" else int(most), base[measure]))
    return tuple(limits)


def format_cost(measure: Measure, cost: float) -> str:
    """A cost for people: ``4.09G MACs``, ``25.6M parameters``, ``12.3 ms``."""
    if measure == "latency":
        return f"{cost:.3g} ms"
    return f"{format_macs(cost)} {'MACs' if measure == 'macs' else 'parameters'}"


def check_reachable(space: Space) -> None:
    """Raise a UserError that names the least reachable cost if no architecture of the space keeps a budget."""
    for limit in space.limits:
        least = space.least(limit.measure)
        if limit.most < least * (1 - 1e-9):
            hint = "" if any(block.droppable for block in space.blocks) else "; none of its blocks may be dropped"
            raise UserError(
                f"budget of {format_cost(limit.measure, limit.most)} can't be met: the least reachable cost of "
                f"{space.base.base} is {format_cost(limit.measure, least)} ({least / limit.base:.3f}x){hint}"
            )
