"""The budget: MACs, absolute or as a share of the base's."""

from __future__ import annotations

import math
import re

from cp_vision.errors import UserError

__all__ = ["parse_budget"]

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def parse_budget(text: str, base_macs: int) -> int:
    """Read a budget.

    Args:
        text: ``"0.7x"`` for a share of the base's cost, ``"2.9G"``, ``"35M"`` or a plain number for MACs.
        base_macs: cost of the base in MACs.

    Returns:
        The budget in MACs, rounded down.

    Raises:
        UserError: neither of the two, or not above zero.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)(e\d+)?\s*([xKMGT]?)\s*", text, re.IGNORECASE)
    if match is None or not 0 < float(match[1] + (match[2] or "")) < math.inf:
        raise UserError(
            f"budget {text!r} is neither a share of the base's MACs (0.7x) nor a number of MACs (2.9G, 35M)"
        )
    value, unit = float(match[1] + (match[2] or "")), match[3].upper()
    return int(value * base_macs) if unit == "X" else int(value * _UNITS[unit])
