"""Axes of the report's pictures.

Positions are percentages of the plot, not units of a viewBox: a picture then fills any width while text and marks
keep their size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


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


def spread(low: float, high: float, pad: float, least: float) -> Axis:
    """An axis with air at both ends; values that are all the same get ``least`` on either side."""
    # Differences that no label could show count as none.
    air = pad * (high - low) if high - low > 1e-6 * least else least
    return Axis(low - air, high + air)


def ticks(low: float, high: float, most: int = 6) -> list[tuple[float, str]]:
    """At most ``most`` round numbers in a range, each with its label."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10, 20) if m * power > raw)
    values = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    digits = next(d for d in range(16) if abs(round(step, d) - step) < step * 1e-6)
    return [(value, f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")) for value in values]


def rows(up: Axis, low: float = -math.inf, high: float = math.inf) -> str:
    """Grid lines and labels of a vertical axis, for values within these bounds."""
    parts = []
    for value, label in ticks(up.low, up.high):
        if low <= value <= high:
            y = up.down(value)
            parts.append(f'<line class="grid" x1="0%" x2="100%" y1="{y}%" y2="{y}%"/>')
            parts.append(f'<text class="tick y" x="0%" dx="-8" y="{y}%" dy="0.35em">{label}</text>')
    return "".join(parts)


def columns(across: Axis, factor: float) -> str:
    """Ticks and labels of a horizontal axis, in units of ``factor``, and its line."""
    parts = ['<line class="axis" x1="0%" x2="100%" y1="100%" y2="100%"/>']
    for value, label in ticks(across.low / factor, across.high / factor):
        x = across.at(value * factor)
        parts.append(f'<text class="tick x" x="{x}%" y="100%" dy="1.6em">{label}</text>')
    return "".join(parts)


def anchor(x: float) -> str:
    """Side of a label that keeps it inside the plot."""
    return "start" if x < 20 else "end" if x > 80 else "middle"
