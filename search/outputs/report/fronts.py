"""The two fronts of the report's chart, and between them what pooling buys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from ...types import Candidate, Results
from .axis import Axis
from .format import front, known_score


def _best_at(members: list[Candidate], macs: float) -> float | None:
    """Accuracy that a front reaches for so many MACs; None where it has nothing as cheap."""
    return max((known_score(c) for c in members if c.macs <= macs), default=None)


@dataclass(frozen=True)
class Gap:
    """Where the front with pools lies above the front without.

    Attributes:
        steps: from and to which MACs, and the accuracies without and with pools.
    """

    steps: tuple[tuple[float, float, float, float], ...]

    @property
    def most(self) -> float:
        """The most that pooling buys at equal MACs, in points; 0 where it buys nothing."""
        return max((high - low for _, _, low, high in self.steps), default=0.0)


def find_gap(results: Results, right: float = math.inf) -> Gap:
    """What pooling buys at equal MACs, from the cheapest architecture without pools up to a cost.

    Args:
        results: of the search.
        right: the most MACs that count, such as the budget.
    """
    every, plain = front(results), front(results, pooled=False)
    edges = sorted({c.macs for c in (*every, *plain) if c.macs <= right})
    steps = []
    for left, end in pairwise([*edges, right]):
        low, high = _best_at(plain, left), _best_at(every, left)
        if low is not None and high is not None and high > low:
            steps.append((float(left), float(end), low, high))
    return Gap(tuple(steps))


def render_gap(gap: Gap, across: Axis, up: Axis) -> str:
    """The area between the two fronts."""
    parts = []
    for left, right, low, high in gap.steps:
        x, y = across.at(left), up.down(high)
        width, height = round(across.at(right) - x, 3), round(up.down(low) - y, 3)
        parts.append(f'<rect class="gap" x="{x}%" y="{y}%" width="{width}%" height="{height}%"/>')
    return "".join(parts)


def render_front(members: list[Candidate], across: Axis, up: Axis, cls: str) -> str:
    """A front as steps: an accuracy holds until the next member beats it."""
    places = [(across.at(c.macs), up.down(known_score(c))) for c in members]
    if not places:
        return ""
    parts = []
    for (x, y), (next_x, next_y) in zip(places, [*places[1:], (100.0, places[-1][1])], strict=True):
        parts.append(f'<line class="{cls}" x1="{x}%" y1="{y}%" x2="{next_x}%" y2="{y}%"/>')
        if next_y != y:
            parts.append(f'<line class="{cls}" x1="{next_x}%" y1="{y}%" x2="{next_x}%" y2="{next_y}%"/>')
    return "".join(parts)
