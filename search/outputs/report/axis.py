"""Axes of the report's pictures.

Positions are percentages of the plot, not units of a viewBox: a picture then fills any width while text and marks
keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Tick = tuple[float, str]


@dataclass(frozen=True)
class Axis:
    """A range of values laid over 0 to 100 percent of the plot."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value lies, in percent; values outside lie on the edge."""
        share = 100 * (value - self.low) / (self.high - self.low)
        return round(min(max(share, 0.0), 100.0), 3)

    def down(self, value: float) -> float:
        """The same from the top, as SVG counts."""
        return round(100 - self.at(value), 3)

    def rows(self, low: float = -math.inf, high: float = math.inf) -> list[Tick]:
        """Ticks of a vertical axis for values within these bounds: where from the top, and the label."""
        return [(self.down(value), label) for value, label in ticks(self.low, self.high) if low <= value <= high]

    def columns(self, factor: float) -> list[Tick]:
        """Ticks of a horizontal axis in units of ``factor``: where, and the label."""
        return [(self.at(value * factor), label) for value, label in ticks(self.low / factor, self.high / factor)]


def spread(values: Sequence[float], pad: float, least: float) -> Axis:
    """An axis over values with air at both ends; values that are all the same get ``least`` on either side."""
    low, high = min(values), max(values)
    # Differences that no label could show count as none.
    air = pad * (high - low) if high - low > 1e-6 * least else least
    return Axis(low - air, high + air)


def ticks(low: float, high: float, most: int = 6) -> list[Tick]:
    """At most ``most`` round numbers in a range, each with its label."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10, 20) if m * power > raw)
    values = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    digits = next(d for d in range(16) if abs(round(step, d) - step) < step * 1e-6)
    return [(value, f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")) for value in values]
