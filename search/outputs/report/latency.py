"""Cost against measured latency: whether saved MACs are saved time on this device."""

from __future__ import annotations

from ...types import Candidate, Results
from .axis import Axis, columns, rows
from .format import count, finite, milliseconds, plural, ratio, unit_of
from .marks import render_legend, render_mark, shape_of


def measured(results: Results) -> list[tuple[Candidate, float]]:
    """Candidates whose latency was measured, with milliseconds."""
    times = {number: time for number, given in results.measured_latency.items() if (time := finite(given)) and time > 0}
    return [(c, times[c.number]) for c in results.candidates if c.number in times]


def gain_in_speed(results: Results) -> str:
    """What the winner gains in images a second for the MACs that it saves; empty where that is not known."""
    times = {c.number: (c, time) for c, time in measured(results)}
    if 0 not in times or results.best not in times or results.best in (0, None):
        return ""
    (base, slow), (best, fast) = times[0], times[results.best]
    saved = (
        f"for {ratio(best.macs, base.macs)} its MACs"
        if best.macs <= base.macs
        else f"though it has {ratio(best.macs, base.macs)} its MACs"
    )
    return (
        f"An image takes the winner <strong>{milliseconds(fast)}</strong> and the base {milliseconds(slow)}: "
        f"{count(1e3 / fast)} images a second against {count(1e3 / slow)}, "
        f"<strong>{ratio(1e3 / fast, 1e3 / slow)} the base's speed</strong> {saved}."
    )


def _promise(across: Axis, up: Axis, base: tuple[Candidate, float] | None) -> str:
    """The line on which a candidate lies that is as fast as its MACs say, from nothing through the base."""
    if base is None or base[0].macs <= 0:
        return ""
    slope = base[1] / base[0].macs
    macs = min(across.high, up.high / slope)
    return f'<line class="promise" x1="0%" y1="100%" x2="{across.at(macs)}%" y2="{up.down(macs * slope)}%"/>'


def render_latency(results: Results) -> str:
    """The section's picture and a line of text; empty with fewer than two measured candidates."""
    timed = measured(results)
    if len(timed) < 2 or not any(c.macs > 0 for c, _ in timed):
        return ""
    # From zero on both axes, so that half the MACs lie at half the way and half the time at half the height.
    across = Axis(0.0, 1.08 * max(c.macs for c, _ in timed))
    up = Axis(0.0, 1.15 * max(time for _, time in timed))
    factor, letter = unit_of(max(c.macs for c, _ in timed))
    base = next((entry for entry in timed if entry[0].is_base), None)
    order = sorted(timed, key=lambda entry: (entry[0].number == results.best, entry[0].is_base))
    marks, labels = [], []
    for candidate, time in order:
        x, y, shape = across.at(candidate.macs), up.down(time), shape_of(candidate, results)
        marks.append(render_mark(candidate, results, x, y, ("solid",), name="time"))
        if shape in ("winner", "base"):
            # Marks lie along the line: over it to the left and under it to the right there is room.
            side, shift = (
                ("start", 'dx="10" dy="20"')
                if shape == "winner" and x < 65
                else ("end", f'dx="6" dy="{26 if shape == "winner" else -14}"')
            )
            labels.append(
                f'<text class="callout" x="{x}%" y="{y}%" {shift} text-anchor="{side}">{shape} '
                f"{milliseconds(time)}</text>"
            )
    promise = _promise(across, up, base)
    text = gain_in_speed(results)
    return (
        (f'<p class="speed">{text}</p>' if text else "")
        + "<figure>"
        + render_legend(
            {shape_of(c, results) for c, _ in timed}, [("dots", "as fast as its MACs say")] if promise else []
        )
        + '<p class="axis-title">measured time of one image, ms</p><div class="plot low">'
        '<svg class="chart" role="group" aria-label="Measured time of one image against MACs">'
        f"{rows(up)}{columns(across, factor)}{promise}{''.join(marks)}{''.join(labels)}</svg></div>"
        f'<p class="axis-title below">MACs for one image{f", {letter}" if letter else ""}</p>'
        f"<figcaption>{plural(len(timed), 'whole model')}, one image at a time, on the machine that searched. "
        + ("Marks over the dotted line save less time than MACs." if promise else "")
        + "</figcaption></figure>"
    )
