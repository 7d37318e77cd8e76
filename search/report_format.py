"""How the report words numbers, names and candidates; every value that reaches the page passes here."""

from __future__ import annotations

import html
import math
from typing import Literal

from .results import Candidate, Results

Kind = Literal["pooled", "drops", "base"]


def esc(value: object) -> str:
    """Text that is safe between tags and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def percent(value: float, digits: int = 2) -> str:
    """``98.06 %``."""
    return f"{value:.{digits}f} %"


def points(difference: float) -> str:
    """A signed difference of two accuracies: ``+1.25 points``."""
    rounded = round(difference, 2)
    if rounded == 0:
        return "0.00 points"
    sign = "+" if rounded > 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(rounded):.2f} points"


def unit_of(value: float) -> tuple[float, str]:
    """Factor and letter of the unit in which a count is shown: ``(1e6, "M")``."""
    for factor, letter in ((1.0, ""), (1e3, "K"), (1e6, "M"), (1e9, "G")):
        # 999.5 and not 1000: three digits would round it up to a fourth.
        if value < 999.5 * factor:
            return factor, letter
    return 1e12, "T"


def count(value: float) -> str:
    """A number of MACs or parameters in three digits and a unit: ``12.3 M``."""
    factor, letter = unit_of(value)
    scaled = value / factor
    if not letter:
        return f"{scaled:.0f}"
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f} {letter}"


def ratio(macs: float, base_macs: float) -> str:
    """MACs relative to the base: ``0.69x``."""
    return f"{macs / base_macs:.2f}x" if base_macs > 0 else "?x"


def plural(number: int, noun: str) -> str:
    """``1 block``, ``3 blocks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def score(candidate: Candidate) -> float | None:
    """Validation accuracy of a complete candidate; None for one that failed or has no finite accuracy."""
    accuracy = candidate.accuracy
    if candidate.state != "complete" or accuracy is None or not math.isfinite(accuracy):
        return None
    return accuracy


def known_score(candidate: Candidate) -> float:
    """Validation accuracy of a candidate that is complete.

    Raises:
        ValueError: it isn't.
    """
    accuracy = score(candidate)
    if accuracy is None:
        raise ValueError(f"candidate {candidate.number} has no accuracy: it is {candidate.state}")
    return accuracy


def kind(candidate: Candidate) -> Kind:
    """What sort of architecture a candidate is, which sets its shape and colour."""
    if candidate.pools:
        return "pooled"
    return "drops" if candidate.drops else "base"


def find(results: Results, number: int | None) -> Candidate | None:
    """The candidate of that number if it is complete, else None."""
    for candidate in results.candidates:
        if candidate.number == number and score(candidate) is not None:
            return candidate
    return None


def front(results: Results) -> list[Candidate]:
    """Complete members of the Pareto front, cheapest first."""
    return [member for number in results.front if (member := find(results, number)) is not None]


def architecture(candidate: Candidate) -> str:
    """Pools and drops in words, unescaped: ``pools: blocks.2; drops: none``."""
    pools = ", ".join(candidate.pools) or "none"
    drops = ", ".join(candidate.drops) or "none"
    return f"pools: {pools}; drops: {drops}"


def describe(candidate: Candidate, results: Results) -> str:
    """One line about a candidate, unescaped, for tooltips and screen readers."""
    accuracy = score(candidate)
    figure = "failed" if accuracy is None else percent(accuracy)
    roles = ["winner"] if candidate.number == results.best else []
    roles += ["base"] if candidate.number == 0 else []
    label = f"candidate {candidate.number}" + (f" ({', '.join(roles)})" if roles else "")
    cost = f"{count(candidate.macs)} MACs, {ratio(candidate.macs, results.base_macs)}"
    return f"{label}: {figure}, {cost}; {architecture(candidate)}"
