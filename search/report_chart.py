"""The report's chart: validation accuracy against MACs as inline SVG.

Positions are percentages of the plot, not units of a viewBox: the chart then fills any width while text and
dots keep their size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .report_format import (
    count,
    describe,
    esc,
    find,
    front,
    kind,
    known_score,
    percent,
    plural,
    score,
    unit_of,
)
from .results import Candidate, Results

SHAPES = {
    "pooled": "M-5.5,0a5.5,5.5 0 1,0 11,0a5.5,5.5 0 1,0 -11,0Z",
    "drops": "M0,-6.5L6.5,5H-6.5Z",
    "base": "M-5,-5H5V5H-5Z",
    "winner": "M0,-10L2.5,-3.4L9.5,-3.1L4,1.3L5.9,8.1L0,4.2L-5.9,8.1L-4,1.3L-9.5,-3.1L-2.5,-3.4Z",
}


@dataclass(frozen=True)
class Axis:
    """A range of values laid over 0 to 100 percent of the plot."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value lies, in percent; values outside lie on the edge."""
        share = 100 * (value - self.low) / (self.high - self.low)
        return round(min(max(share, 0.0), 100.0), 3)


def spread(low: float, high: float, pad: float, least: float) -> Axis:
    """An axis with air at both ends; values that are all the same get ``least`` on either side."""
    air = pad * (high - low) if high > low else least
    return Axis(low - air, high + air)


def ticks(low: float, high: float, most: int = 6) -> list[tuple[float, str]]:
    """At most ``most`` round numbers in a range, each with its label."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10, 20) if m * power > raw)
    values = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    digits = next(d for d in range(16) if abs(round(step, d) - step) < step * 1e-6)
    return [(value, f"{value:.{digits}f}") for value in values]


def lowest_shown(accuracies: list[float], keep: list[float]) -> float:
    """Where the accuracy axis begins: one collapsed training must not flatten all the others.

    Args:
        accuracies: of every complete candidate.
        keep: accuracies that have to stay on the axis.
    """
    ordered = sorted(accuracies)
    middle, top = ordered[len(ordered) // 2], ordered[-1]
    limit = middle - max(5.0, 3 * (top - middle))
    return max(ordered[0], min(limit, *keep))


def _anchor(x: float) -> str:
    """Side of a label that keeps it inside the plot."""
    return "start" if x < 20 else "end" if x > 80 else "middle"


def _grid(across: Axis, up: Axis, factor: float) -> str:
    """Grid lines and tick labels of both axes."""
    parts = []
    for value, label in ticks(up.low, up.high):
        if 0 <= value <= 100:
            y = round(100 - up.at(value), 3)
            parts.append(f'<line class="grid" x1="0%" x2="100%" y1="{y}%" y2="{y}%"/>')
            parts.append(f'<text class="tick y" x="-8" y="{y}%" dy="0.35em">{label}</text>')
    for value, label in ticks(across.low / factor, across.high / factor):
        x = across.at(value * factor)
        parts.append(f'<line class="tickmark" x1="{x}%" x2="{x}%" y1="100%" y2="100%"/>')
        parts.append(f'<text class="tick x" x="{x}%" y="100%" dy="1.6em">{label}</text>')
    return "".join(parts)


def _front_line(points: list[tuple[float, float]]) -> str:
    """The Pareto front as steps: an accuracy holds until the next member beats it."""
    parts = []
    ends = [*points[1:], (100.0, points[-1][1])]
    for (x, y), (next_x, next_y) in zip(points, ends, strict=True):
        parts.append(f'<line class="front" x1="{x}%" y1="{y}%" x2="{next_x}%" y2="{y}%"/>')
        if next_y != y:
            parts.append(f'<line class="front" x1="{next_x}%" y1="{y}%" x2="{next_x}%" y2="{next_y}%"/>')
    return "".join(parts)


def _dot(candidate: Candidate, results: Results, x: float, y: float, classes: str) -> str:
    """One candidate: a link to its strip, so that keyboard and pages without script have it too."""
    number = candidate.number
    shape = SHAPES["winner" if number == results.best else kind(candidate)]
    return (
        f'<a class="dot {classes}" id="dot-{number}" href="#row-{number}" data-n="{number}">'
        f"<title>{esc(describe(candidate, results))}</title>"
        f'<svg x="{x}%" y="{y}%" width="1" height="1" overflow="visible">'
        f'<circle class="halo" r="11"/><path class="mark" d="{shape}"/></svg></a>'
    )


def _key(shape: str, label: str) -> str:
    """One entry of the legend."""
    return (
        f'<li><svg class="key {shape} solid" viewBox="-11 -11 22 22" aria-hidden="true">'
        f'<path class="mark" d="{SHAPES[shape]}"/></svg>{label}</li>'
    )


def _legend() -> str:
    return (
        '<ul class="legend">'
        + _key("winner", "winner")
        + _key("pooled", "pooled")
        + _key("drops", "drops only")
        + _key("base", "base")
        + '<li><span class="key stroke"></span>Pareto front</li>'
        '<li><span class="key dashes"></span>budget</li>'
        "</ul>"
    )


def render_chart(results: Results) -> str:
    """The figure with legend and axes; one sentence when no candidate is complete."""
    scored = [(c, a) for c in results.candidates if (a := score(c)) is not None]
    if not scored:
        return '<p class="empty">No candidate is complete yet, so there is nothing to draw.</p>'
    members = front(results)
    shown = [*members, *(c for n in (0, results.best) if (c := find(results, n)) is not None)]
    accuracies = [a for _, a in scored]
    lowest = lowest_shown(accuracies, [known_score(c) for c in shown])
    up = spread(lowest, max(accuracies), pad=0.12, least=1.0)
    costs = [*(c.macs for c, _ in scored), results.budget_macs]
    across = spread(min(costs), max(costs), pad=0.06, least=max(1.0, 0.1 * max(costs)))
    factor, letter = unit_of(max(costs))

    spots = {c.number: (across.at(c.macs), round(100 - up.at(a), 3)) for c, a in scored}
    front_numbers = {c.number for c in members}
    # Drawn last is drawn on top: the front over the rest, the base and the winner over all.
    order = sorted(scored, key=lambda s: (s[0].number == results.best, s[0].number == 0, s[0].number in front_numbers))
    dots = []
    for candidate, accuracy in order:
        number = candidate.number
        solid = number in front_numbers or number in (0, results.best)
        classes = [kind(candidate), *(["winner"] if number == results.best else [])]
        classes += [*(["solid"] if solid else []), *(["below"] if accuracy < lowest else [])]
        dots.append(_dot(candidate, results, *spots[number], " ".join(classes)))

    label = ""
    best = find(results, results.best)
    if best is not None:
        x, y = spots[best.number]
        # To the left where there's room: no dot lies above the front, and the budget's line is on the right.
        side, shift = ("end", 6) if x > 15 else ("start", -6)
        label = (
            f'<text class="callout" x="{x}%" y="{y}%" dx="{shift}" dy="-15" text-anchor="{side}">'
            f"{percent(known_score(best), 1)}</text>"
        )
    edge = across.at(results.budget_macs)
    below = sum(a < lowest for a in accuracies)
    note = f"{plural(below, 'candidate')} below the axis, drawn hollow on its lower edge." if below else ""
    summary = (
        f"{plural(len(scored), 'complete candidate')}, {len(members)} on the Pareto front; accuracy from "
        f"{percent(min(accuracies))} to {percent(max(accuracies))}; budget {count(results.budget_macs)} MACs."
    )
    return (
        f'<figure>{_legend()}<p class="axis-title">validation accuracy, %</p><div class="plot">'
        '<svg class="chart" role="group" aria-labelledby="chart-title" aria-describedby="chart-desc">'
        '<title id="chart-title">Validation accuracy against MACs</title>'
        f'<desc id="chart-desc">{summary}</desc>'
        f'<rect class="over" x="{edge}%" y="0%" width="{round(100 - edge, 3)}%" height="100%"/>'
        f"{_grid(across, up, factor)}"
        '<line class="axis" x1="0%" x2="100%" y1="100%" y2="100%"/>'
        f'<line class="budget" x1="{edge}%" x2="{edge}%" y1="0%" y2="100%"/>'
        f'<text class="budget-label" x="{edge}%" y="0%" dy="-8" text-anchor="{_anchor(edge)}">'
        f"budget {esc(results.budget)}</text>"
        f"{_front_line([spots[c.number] for c in members])}{''.join(dots)}{label}"
        f'</svg></div><p class="axis-title below">MACs for one image{f", {letter}" if letter else ""}</p>'
        f"<figcaption>{note}</figcaption></figure>"
    )
