"""The report's chart: accuracy against MACs, with budget, baselines and both fronts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...types import Candidate, Results
from .axis import Axis, anchor, columns, rows, spread
from .format import (
    count,
    esc,
    find,
    finite,
    front,
    known_score,
    own_score,
    partial_score,
    percent,
    plural,
    points,
    score,
    unit_of,
)
from .fronts import find_gap, render_front, render_gap
from .marks import render_legend, render_mark, shape_of
from .words import accuracy_name, shared


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


@dataclass(frozen=True)
class _Plot:
    """What is drawn, and on which axes."""

    results: Results

    @cached_property
    def complete(self) -> list[tuple[Candidate, float]]:
        return [(c, a) for c in self.results.candidates if (a := score(c)) is not None]

    @cached_property
    def fronts(self) -> tuple[list[Candidate], list[Candidate]]:
        return front(self.results), front(self.results, pooled=False)

    @cached_property
    def budget(self) -> float | None:
        """The budget in MACs; None where there is none, or one so wide that its line would squeeze the dots."""
        most = max(c.macs for c, _ in self.complete)
        budget = self.results.budget_macs
        return budget if budget is not None and budget <= 1.5 * most else None

    @cached_property
    def floor(self) -> float | None:
        """The accuracy to keep; None where there is none, or none that this axis could show."""
        base, keep = find(self.results, 0), finite(self.results.keep_accuracy)
        if base is None or keep is None or finite(base.trained) is not None:
            return None
        return known_score(base) - keep

    @cached_property
    def lowest(self) -> float:
        members = [*self.fronts[0], *(c for n in (0, self.results.best) if (c := find(self.results, n)) is not None)]
        return lowest_shown([a for _, a in self.complete], [known_score(c) for c in members])

    @cached_property
    def up(self) -> Axis:
        shown = [self.lowest, max(a for _, a in self.complete), *([] if self.floor is None else [self.floor])]
        return spread(min(shown), max(shown), pad=0.12, least=1.0)

    @cached_property
    def across(self) -> Axis:
        costs = [float(c.macs) for c, _ in self.complete] + ([] if self.budget is None else [self.budget])
        return spread(min(costs), max(costs), pad=0.06, least=max(1.0, 0.1 * max(costs)))

    @cached_property
    def stopped(self) -> tuple[list[tuple[Candidate, float]], int]:
        """Those that were stopped early and lie on the axes, and how many don't: they would pile up at the edge."""
        every = [(c, a) for c in self.results.candidates if (a := partial_score(c)) is not None]
        up, across = self.up, self.across
        shown = [(c, a) for c, a in every if up.low < a < up.high and across.low <= c.macs <= across.high]
        return shown, len(every) - len(shown)


def _dots(plot: _Plot) -> str:
    """Every candidate; what is drawn last is on top: the front over the rest, base and winner over all."""
    results, members = plot.results, {c.number for c in plot.fronts[0]}
    parts = [render_mark(c, results, plot.across.at(c.macs), plot.up.down(a), ("stopped",)) for c, a in plot.stopped[0]]
    order = sorted(plot.complete, key=lambda s: (s[0].number == results.best, s[0].is_base, s[0].number in members))
    for candidate, accuracy in order:
        solid = candidate.number in members or candidate.number in (0, results.best)
        classes = (*(["solid"] if solid else []), *(["below"] if accuracy < plot.lowest else []))
        parts.append(render_mark(candidate, results, plot.across.at(candidate.macs), plot.up.down(accuracy), classes))
    return "".join(parts)


def _callout(plot: _Plot) -> str:
    """The winner's accuracy beside its star."""
    best = find(plot.results, plot.results.best)
    if best is None:
        return ""
    x, y = plot.across.at(best.macs), plot.up.down(known_score(best))
    # To the left where there's room: no dot lies above the front, and the budget's line is on the right.
    side, shift = ("end", 6) if x > 15 else ("start", -6)
    words = percent(known_score(best), 1)
    if shared(plot.results) and finite(best.trained) is not None:
        words += f", trained {percent(own_score(best), 1)}"
    return f'<text class="callout" x="{x}%" y="{y}%" dx="{shift}" dy="-15" text-anchor="{side}">{words}</text>'


def _budget(plot: _Plot) -> tuple[str, str]:
    """What lies over the budget, and the budget's line with its label."""
    if plot.budget is None:
        return "", ""
    edge = plot.across.at(plot.budget)
    area = f'<rect class="over" x="{edge}%" y="0%" width="{round(100 - edge, 3)}%" height="100%"/>'
    line = (
        f'<line class="budget" x1="{edge}%" x2="{edge}%" y1="0%" y2="100%"/>'
        f'<text class="budget-label" x="{edge}%" y="0%" dy="-8" text-anchor="{anchor(edge)}">'
        f"budget {esc(_macs_budget(plot.results))}</text>"
    )
    return area, line


def _macs_budget(results: Results) -> str:
    """The budget of MACs as the user wrote it: one of several."""
    return next((limit.text for limit in results.limits if limit.measure == "macs"), results.budget)


def _floor(plot: _Plot) -> str:
    """The line of the accuracy to keep."""
    if plot.floor is None:
        return ""
    y = plot.up.down(plot.floor)
    return (
        f'<line class="floor" x1="0%" x2="100%" y1="{y}%" y2="{y}%"/>'
        f'<text class="floor-label" x="0%" y="{y}%" dx="4" dy="-6">'
        f"{plot.results.keep_accuracy:g} points below the base</text>"
    )


def _notes(plot: _Plot, most: float) -> str:
    """What the picture can't say by itself."""
    results, notes = plot.results, []
    if most > 0.005:
        notes.append(f"Shaded is what pooling buys: up to {points(most)} at equal MACs.")
    below = sum(a < plot.lowest for _, a in plot.complete)
    if below:
        notes.append(f"{plural(below, 'candidate')} below the axis, drawn hollow on its lower edge.")
    if plot.stopped[1]:
        notes.append(f"{plural(plot.stopped[1], 'candidate')} stopped early, off the axes, not drawn.")
    if results.budget_macs is not None and plot.budget is None:
        notes.append(f"The budget, {count(results.budget_macs)} MACs, lies beyond the axis.")
    if shared(results):
        notes.append(
            "Accuracies here are those with shared weights, which rank candidates; a training of its own takes "
            "a candidate further."
        )
    return " ".join(notes)


def _legend(plot: _Plot, gap: bool) -> str:
    shapes = {shape_of(c, plot.results) for c, _ in plot.complete} | ({"stopped"} if plot.stopped[0] else set())
    others = [("stroke", "front of all")]
    if plot.fronts[1]:
        others.append(("stroke plain", "front without pools"))
    others += [("area", "what pooling buys")] if gap else []
    others += [("dashes", "budget")] if plot.budget is not None else []
    return render_legend(shapes, others)


def render_chart(results: Results) -> str:
    """The figure with legend and axes; one sentence when no candidate is complete."""
    plot = _Plot(results)
    if not plot.complete:
        return '<p class="empty">No candidate is complete yet, so there is nothing to draw.</p>'
    name, (members, plain) = accuracy_name(results), plot.fronts
    gap = find_gap(results, plot.across.high if plot.budget is None else plot.budget)
    accuracies = [a for _, a in plot.complete]
    factor, letter = unit_of(max(c.macs for c, _ in plot.complete))
    over, budget = _budget(plot)
    limit = "" if results.budget_macs is None else f"; budget {count(results.budget_macs)} MACs"
    summary = (
        f"{plural(len(accuracies), 'complete candidate')}, {len(members)} on the Pareto front; accuracy from "
        f"{percent(min(accuracies))} to {percent(max(accuracies))}{limit}."
    )
    return (
        f'<figure>{_legend(plot, bool(gap.steps))}<p class="axis-title">{name}, %</p><div class="plot">'
        '<svg class="chart" role="group" aria-labelledby="chart-title" aria-describedby="chart-desc">'
        f'<title id="chart-title">{name[0].upper()}{name[1:]} against MACs</title>'
        f'<desc id="chart-desc">{summary}</desc>{over}'
        f"{rows(plot.up, 0, 100)}{columns(plot.across, factor)}{render_gap(gap, plot.across, plot.up)}{budget}"
        f"{_floor(plot)}{render_front(members, plot.across, plot.up, 'front')}"
        f"{render_front(plain, plot.across, plot.up, 'plain')}{_dots(plot)}{_callout(plot)}"
        f'</svg></div><p class="axis-title below">MACs for one image{f", {letter}" if letter else ""}</p>'
        f"<figcaption>{_notes(plot, gap.most)}</figcaption></figure>"
    )
