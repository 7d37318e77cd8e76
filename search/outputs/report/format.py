"""How the report words numbers, and which figures of a candidate it may show."""

from __future__ import annotations

import html
import math
from typing import Literal

from ...selection import pareto_front
from ...types import Candidate, Results

Kind = Literal["pooled", "drops", "base"]


def esc(value: object) -> str:
    """Text that is safe between tags and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def finite(value: float | None) -> float | None:
    """The value if it is a finite number, else None."""
    return value if value is not None and math.isfinite(value) else None


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


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def count(value: float) -> str:
    """A number of MACs or parameters in three digits and a unit: ``12.3 M``."""
    if not math.isfinite(value):
        return "?"
    sign = "\N{MINUS SIGN}" if value < 0 else ""
    factor, letter = unit_of(abs(value))
    scaled = abs(value) / factor
    return f"{sign}{_three_digits(scaled)} {letter}" if letter else f"{sign}{scaled:.0f}"


def milliseconds(value: float) -> str:
    """A time in three digits: ``12.3 ms``."""
    return f"{_three_digits(value)} ms" if math.isfinite(value) else "? ms"


def ratio(cost: float, base: float) -> str:
    """A cost relative to the base's: ``0.69x``."""
    return f"{cost / base:.2f}x" if base > 0 and math.isfinite(cost / base) else "?x"


def plural(number: int, noun: str) -> str:
    """``1 block``, ``3 blocks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def score(candidate: Candidate) -> float | None:
    """Validation accuracy of a complete candidate; None for others, and for one that has no finite accuracy."""
    return finite(candidate.accuracy) if candidate.state == "complete" else None


def partial_score(candidate: Candidate) -> float | None:
    """Validation accuracy of a candidate at the epoch where it was stopped early; None for others."""
    return finite(candidate.accuracy) if candidate.state == "stopped" else None


def known_score(candidate: Candidate) -> float:
    """Validation accuracy of a candidate that is complete.

    Raises:
        ValueError: it isn't.
    """
    accuracy = score(candidate)
    if accuracy is None:
        raise ValueError(f"candidate {candidate.number} has no accuracy: it is {candidate.state}")
    return accuracy


def own_score(candidate: Candidate) -> float:
    """Accuracy after a training of its own where there is one, else that with shared weights.

    Raises:
        ValueError: it has none, as it isn't complete.
    """
    trained = finite(candidate.trained)
    return known_score(candidate) if trained is None else trained


def kind(candidate: Candidate) -> Kind:
    """What sort of architecture a candidate is, which sets its shape and colour."""
    if candidate.pools:
        return "pooled"
    return "base" if candidate.is_base else "drops"


def find(results: Results, number: int | None) -> Candidate | None:
    """The candidate of that number if it is complete, else None."""
    for candidate in results.candidates:
        if candidate.number == number and score(candidate) is not None:
            return candidate
    return None


def front(results: Results, pooled: bool = True) -> list[Candidate]:
    """Members of the Pareto front, cheapest first; without ``pooled`` that of the candidates that don't pool."""
    among = [c for c in results.candidates if score(c) is not None and (pooled or not c.pools)]
    numbers = {c.number: c for c in among}
    return [numbers[number] for number in pareto_front(among)]
