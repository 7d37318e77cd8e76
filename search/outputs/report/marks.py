"""The marks that stand for candidates in the report's pictures, and the keys that explain them."""

from __future__ import annotations

from ...types import Candidate, Results
from .format import esc, kind
from .words import describe

# Shapes differ as well as colours, which some can't tell apart.
SHAPES = {
    "pooled": "M-5.5,0a5.5,5.5 0 1,0 11,0a5.5,5.5 0 1,0 -11,0Z",
    "drops": "M0,-6.5L6.5,5H-6.5Z",
    "base": "M-5,-5H5V5H-5Z",
    "winner": "M0,-10L2.5,-3.4L9.5,-3.1L4,1.3L5.9,8.1L0,4.2L-5.9,8.1L-4,1.3L-9.5,-3.1L-2.5,-3.4Z",
}
LABELS = {"winner": "winner", "pooled": "pooled", "drops": "no pools", "base": "base"}


def shape_of(candidate: Candidate, results: Results) -> str:
    """Name of a candidate's shape."""
    return "winner" if candidate.number == results.best else kind(candidate)


def render_mark(
    candidate: Candidate, results: Results, x: float, y: float, classes: tuple[str, ...] = (), name: str = "dot"
) -> str:
    """One candidate: a link to its strip, so that keyboard and pages without script have it too.

    Args:
        candidate: the candidate.
        results: of the search.
        x: where it lies, in percent of the plot.
        y: the same from the top.
        classes: further classes.
        name: what its id begins with.
    """
    shape = shape_of(candidate, results)
    of = " ".join(dict.fromkeys([kind(candidate), *(["winner"] if shape == "winner" else []), *classes]))
    return (
        f'<a class="dot {of}" id="{name}-{candidate.number}" href="#row-{candidate.number}" '
        f'data-n="{candidate.number}"><title>{esc(describe(candidate, results))}</title>'
        f'<svg x="{x}%" y="{y}%" width="1" height="1" overflow="visible">'
        f'<circle class="halo" r="11"/><path class="mark" d="{SHAPES[shape]}"/></svg></a>'
    )


def render_legend(shapes: set[str], others: list[tuple[str, str]]) -> str:
    """The legend of a picture.

    Args:
        shapes: names of the shapes that occur.
        others: class of a key and its label, for lines and areas.
    """
    keys = [
        f'<li><svg class="key {shape} solid" viewBox="-11 -11 22 22" aria-hidden="true">'
        f'<path class="mark" d="{SHAPES[shape]}"/></svg>{label}</li>'
        for shape, label in LABELS.items()
        if shape in shapes
    ]
    if "stopped" in shapes:
        keys.append(
            '<li><svg class="key pooled stopped" viewBox="-11 -11 22 22" aria-hidden="true">'
            f'<path class="mark" d="{SHAPES["pooled"]}"/></svg>stopped early</li>'
        )
    keys += [f'<li><span class="key {cls}" aria-hidden="true"></span>{label}</li>' for cls, label in others]
    return f'<ul class="legend">{"".join(keys)}</ul>'
