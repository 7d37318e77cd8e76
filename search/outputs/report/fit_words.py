"""How the report of a search by fitted stand-ins words accuracies and differences, which are plain values there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .words import MINUS

__all__ = ["COSTS", "FORMS", "bound", "outcomes", "percent", "signed"]

FORMS = {
    "best": "pools allowed",
    "no pools": "without pools",
    "drop only": "dropped blocks alone",
}
COSTS = {"macs": "MACs", "params": "parameters", "latency": "time of an image"}


def bound(difference: Mapping[str, float | None]) -> float:
    """Half of a 95 % interval."""
    return 1.96 * (difference["error"] or 0.0)


def percent(accuracy: Mapping[str, float | None] | None) -> str:
    """An accuracy with its error: ``82.50 ± 1.45 %``; empty where it isn't known."""
    if accuracy is None or accuracy["value"] is None:
        return ""
    error = "" if accuracy["error"] is None else f" ± {accuracy['error']:.2f}"
    return f"{accuracy['value']:.2f}{error} %"


def signed(difference: Mapping[str, float | None] | None) -> str:
    """A difference in points with its error: ``-0.75 ± 0.41``."""
    if difference is None or difference["value"] is None:
        return ""
    value, error = round(difference["value"], 2), difference["error"]
    sign = "" if value == 0 else "+" if value > 0 else MINUS
    return f"{sign}{abs(value):.2f}" + ("" if error is None else f" ± {error:.2f}")


def outcomes(point: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The best model of a budget and its counterparts, by what they may be made of."""
    return [("best", point), *point["counterparts"].items()]
