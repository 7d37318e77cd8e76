"""The report's charts: accuracy against cost, in the measure of the first budget, and MACs against measured latency.

What the template draws, in percent of the plot.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from ...types import Candidate, Results
from .axis import Axis, spread
from .figures import find, front, kind, known_score, partial_score, score
from .words import COSTS, amount, describe, estimate, limits_of, unit_of


def _mark(candidate: Candidate, results: Results, x: float, y: float, *classes: str) -> dict[str, Any]:
    """A candidate's mark at a place, with further classes; filled where it is known best, of trainings or times."""
    sort, wins = kind(candidate), candidate.number == results.best
    every = [sort, *(["winner"] if wins else []), *classes]
    words = describe(candidate, results)
    return {
        "number": candidate.number,
        "x": x,
        "y": y,
        "shape": "winner" if wins else sort,
        "classes": every,
        "words": words,
    }


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


def find_gap(results: Results, right: float = math.inf) -> list[tuple[float, float, float, float]]:
    """What pooling buys at equal cost, from the cheapest architecture without pools up to a cost.

    Args:
        results: of the search.
        right: the most cost that counts, such as the budget.

    Returns:
        Steps where the front with pools lies above that without: from and to which cost, and the accuracies without
        and with pools.
    """
    every, plain = front(results), front(results, pooled=False)
    steps = []
    costs = {c.cost(results.measure) for c in (*every, *plain)}
    for left, end in pairwise([*sorted(cost for cost in costs if cost <= right), right]):
        low, high = (
            max((known_score(c) for c in members if c.cost(results.measure) <= left), default=None)
            for members in (plain, every)
        )
        if low is not None and high is not None and high > low:
            steps.append((float(left), float(end), low, high))
    return steps


def _front_line(
    members: list[Candidate], results: Results, across: Axis, up: Axis
) -> list[tuple[float, float, float, float]]:
    """A front as steps, each from a point to a point: an accuracy holds until the next member beats it."""
    places = [(across.at(c.cost(results.measure)), up.down(known_score(c))) for c in members]
    lines = []
    for (x, y), (next_x, next_y) in pairwise([*places, *((100.0, y) for _, y in places[-1:])]):
        lines.append((x, y, next_x, y))
        if next_y != y:
            lines.append((next_x, y, next_x, next_y))
    return lines


def cost_chart(results: Results) -> dict[str, Any] | None:
    """Accuracy against cost, with budget, baselines and both fronts; None while no candidate is complete."""
    complete = [(c, a) for c in results.candidates if (a := score(c)) is not None]
    if not complete:
        return None
    accuracies, known = [a for _, a in complete], [c.cost(results.measure) for c, _ in complete]
    members, plain = front(results), front(results, pooled=False)
    base, best, limit = find(results, 0), find(results, results.best), next(iter(limits_of(results)), None)
    # Further away its line would squeeze the dots.
    budget = limit.most if limit is not None and limit.most <= 1.5 * max(known) else None
    keep, kept = results.keep_accuracy, []
    if base is not None and keep is not None:
        kept = [known_score(base) - keep]
    lowest = lowest_shown(accuracies, [known_score(c) for c in (*members, base, best) if c is not None])
    up = spread([lowest, max(accuracies), *kept], pad=0.12, least=1.0)
    costs = [*known, *([] if budget is None else [budget])]
    across = spread(costs, pad=0.06, least=0.1 * max(costs) or 1.0)

    partial = [(c, a) for c in results.candidates if (a := partial_score(c)) is not None]
    # Those off the axes would pile up at the edge.
    low, high = across.low, across.high
    stopped = [(c, a) for c, a in partial if up.low < a < up.high and low <= c.cost(results.measure) <= high]
    marks = [_mark(c, results, across.at(c.cost(results.measure)), up.down(a), "stopped") for c, a in stopped]
    # What is drawn last is on top: the front over the rest, base and winner over all.
    on_front = {c.number for c in members}
    for c, a in sorted(complete, key=lambda s: (s[0].number == results.best, s[0].is_base, s[0].number in on_front)):
        solid = c.number in on_front or c.number in (0, results.best)
        classes = [*(["solid"] if solid else []), *(["below"] if a < lowest else [])]
        marks.append(_mark(c, results, across.at(c.cost(results.measure)), up.down(a), *classes))

    gap, areas = find_gap(results, across.high if budget is None else budget), []
    for left, right, low, high in gap:
        x, y = across.at(left), up.down(high)
        areas.append((x, y, round(across.at(right) - x, 3), round(up.down(low) - y, 3)))
    callout = None
    if best is not None:
        words = estimate(best, results, 1, seeds=False)
        callout = {"x": across.at(best.cost(results.measure)), "y": up.down(known_score(best)), "words": words}
    factor, letter = unit_of(max(known))
    return {
        "accuracies": accuracies,
        "rows": up.rows(0, 100),
        "columns": across.columns(factor),
        "letter": letter,
        "edge": None if budget is None else across.at(budget),
        "cost": COSTS[results.measure],
        # As the user wrote it: one of several.
        "budget": None if limit is None else limit.text,
        "allowed": None if limit is None else amount(limit.measure, limit.most),
        "floor": up.down(kept[0]) if kept else None,
        "front": _front_line(members, results, across, up),
        "plain": _front_line(plain, results, across, up),
        "members": len(members),
        "gap": areas,
        "most": max((high - low for _, _, low, high in gap), default=0.0),
        "marks": marks,
        "shapes": {m["shape"] for m in marks[len(stopped) :]} | ({"stopped"} if stopped else set()),
        "callout": callout,
        "below": sum(a < lowest for a in accuracies),
        "off": len(partial) - len(stopped),
    }


def latency_chart(results: Results) -> dict[str, Any] | None:
    """Measured time of an image against MACs; None with fewer than two measured candidates."""
    times = {number: time for number, time in results.measured_latency.items() if time > 0}
    timed = [(c, times[c.number]) for c in results.candidates if c.number in times]
    if len(timed) < 2 or not any(c.macs > 0 for c, _ in timed):
        return None
    macs = max(c.macs for c, _ in timed)
    # From zero on both axes, so that half the MACs lie at half the way and half the time at half the height.
    across, up = Axis(0.0, 1.08 * macs), Axis(0.0, 1.15 * max(time for _, time in timed))
    base = next((entry for entry in timed if entry[0].is_base), None)
    best = next((entry for entry in timed if entry[0].number == results.best and not entry[0].is_base), None)
    promise = None
    if base is not None and base[0].macs > 0:
        # The end of the line on which a model lies that is as fast as its MACs say, from nothing through the base.
        slope = base[1] / base[0].macs
        end = min(across.high, up.high / slope)
        promise = across.at(end), up.down(end * slope)
    order = sorted(timed, key=lambda entry: (entry[0].number == results.best, entry[0].is_base))
    marks = [(_mark(c, results, across.at(c.macs), up.down(time), "solid"), time) for c, time in order]
    factor, letter = unit_of(macs)
    shapes = {mark["shape"] for mark, _ in marks}
    axes = {"rows": up.rows(), "columns": across.columns(factor), "letter": letter}
    return dict(axes, base=base, best=best, promise=promise, marks=marks, shapes=shapes)
