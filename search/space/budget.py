"""Budgets: MACs, parameters or latency, absolute or as a share of the base's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from cp_vision.cost.macs import format_macs
from cp_vision.shared.errors import UserError, closest

from ..types import Limit, Measure
from .space import Space

__all__ = ["MEASURES", "check_reachable", "format_cost", "measures_of", "parse_budgets"]

MEASURES: tuple[Measure, ...] = ("macs", "params", "latency")
_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_TIMES = {"US": 1e-3, "MS": 1.0, "S": 1e3}
_EXAMPLES = {"macs": "0.7x, 2.9G or 35M", "params": "0.7x or 12M", "latency": "0.7x or 15ms"}


def _parse(text: str) -> list[tuple[Measure, str, float, float | None]]:
    """Of each part what it is of, how it is written, its number and its unit, None for a share of the base's."""
    if not isinstance(text, str):
        raise UserError(f"budget {text!r} must be text, such as {_EXAMPLES['macs']}")
    found: list[tuple[Measure, str, float, float | None]] = []
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = "macs", part
        name, value = name.strip().lower(), value.strip()
        measure = next((measure for measure in MEASURES if measure == name), None)
        if measure is None:
            raise UserError(f"budget {part!r}: {name!r} is not one of {', '.join(MEASURES)}{closest(name, MEASURES)}")
        units = _TIMES if measure == "latency" else _COUNTS
        match = re.fullmatch(r"(\d+\.?\d*|\.\d+)(e\d+)?\s*([a-zA-Z]*)", value)
        unit = match[3].upper() if match else ""
        number = float(match[1] + (match[2] or "")) if match else math.nan
        if not 0 < number < math.inf or (unit != "X" and unit not in units):
            raise UserError(
                f"budget {text!r}: {value!r} is neither a share of the base's {measure} nor a number of them, such as "
                f"{_EXAMPLES[measure]}"
            )
        if not unit and number < 1:
            raise UserError(f"budget {text!r} is less than one of {measure}; a share of the base's is {value}x")
        if measure in (earlier for earlier, *_ in found):
            raise UserError(f"budget {text!r} has two budgets of {measure}; give one")
        found.append((measure, value, number, units.get(unit)))
    return found


def measures_of(text: str) -> tuple[Measure, ...]:
    """What a budget is of, in its order; raises UserError as :func:`parse_budgets`."""
    return tuple(measure for measure, *_ in _parse(text))


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
    for measure, value, number, unit in _parse(text):
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
