"""Budgets as they are written: what each is of, its number and its unit."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from cp_vision.shared.errors import UserError, closest

from ..types import Measure

__all__ = ["MEASURES", "WrittenBudget", "read_budgets"]

MEASURES: tuple[Measure, ...] = ("macs", "params", "latency")
_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_TIMES = {"US": 1e-3, "MS": 1.0, "S": 1e3}
_EXAMPLES = {"macs": "0.7x, 2.9G or 35M", "params": "0.7x or 12M", "latency": "0.7x or 15ms"}


class WrittenBudget(NamedTuple):
    """One budget.

    Attributes:
        measure: ``macs``, ``params`` or ``latency``.
        text: as it is written, without its name.
        number: the number in it.
        unit: MACs, parameters or milliseconds that the number counts; None for a share of the base's.
    """

    measure: Measure
    text: str
    number: float
    unit: float | None


def read_budgets(text: str, sweep: bool = False) -> list[WrittenBudget]:
    """Read one or several budgets, see :func:`cp_vision.search.parse_budgets`.

    Args:
        text: the budgets.
        sweep: whether there may be several of one measure, for a model each.

    Raises:
        UserError: none of these, not above zero, or two budgets of one measure.
    """
    if not isinstance(text, str):
        raise UserError(f"budget {text!r} must be text, such as {_EXAMPLES['macs']}")
    found: list[WrittenBudget] = []
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
        if measure in (earlier.measure for earlier in found) and not sweep:
            raise UserError(f"budget {text!r} has two budgets of {measure}; give one")
        found.append(WrittenBudget(measure, value, number, units.get(unit)))
    return found
