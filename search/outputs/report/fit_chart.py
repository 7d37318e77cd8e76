"""Accuracy and divergence over cost, of the best models and their counterparts; positions in percent of the plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ...fit.budget import cost_in_words
from .axis import Axis, Tick, spread
from .fit_words import COSTS, FORMS, outcomes, percent
from .words import MINUS

__all__ = ["fit_charts"]

# A figure with its error, of a model; None where it isn't known.
_Figure = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def fit_charts(values: Mapping[str, Any], measure: str) -> list[dict[str, Any]]:
    """What the template draws: accuracy, where it is known, and divergence against cost.

    Args:
        values: of :mod:`cp_vision.search.outputs.fit_results`.
        measure: of the cost.
    """
    points = [point for point in values["points"] if point["measure"] == measure]
    base, charts = values["base_test_top1"], []
    across = spread([1.0, *(o["share_of_base"] for point in points for _, o in outcomes(point))], 0.06, 0.1)
    if base is not None:
        tops = [o["test_top1"]["value"] for point in points for form, o in outcomes(point)]
        kept = [o["test_top1"]["value"] for point in points for form, o in outcomes(point) if form != "drop only"]
        # One collapsed model must not flatten all the others.
        lowest = max(min(tops), min([*kept, base["value"]]) - max(3.0, 1.5 * (base["value"] - min(kept))))
        errors = [base["error"] or 0.0]
        up = spread([lowest, *(t for t in tops if t >= lowest), base["value"] + errors[0]], 0.1, 1.0)
        charts.append(_chart(points, values, across, up, lambda o: o["test_top1"], "test accuracy, %", base))
    scores = [o["divergence"] for point in points for _, o in outcomes(point)]
    if usable := [score for score in scores if 0 < score < math.inf]:
        up = spread([math.log10(score) for score in usable], 0.1, 0.5)
        charts.append(_chart(points, values, across, up, _log_divergence, f"{values['score']} from the base", None))
    return charts


def _log_divergence(outcome: Mapping[str, Any]) -> dict[str, Any] | None:
    score = outcome["divergence"]
    return {"value": math.log10(score), "error": None} if 0 < score < math.inf else None


def _chart(
    points: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    across: Axis,
    up: Axis,
    of: _Figure,
    name: str,
    base: Mapping[str, Any] | None,
) -> dict[str, Any]:
    curves: dict[str, list[tuple[float, float, float, float]]] = {}
    marks = []
    for form in reversed(FORMS):
        found = []
        for point in points:
            for own, outcome in outcomes(point):
                figure = of(outcome) if own == form else None
                if figure is not None:
                    found.append((outcome["share_of_base"], figure["value"], figure["error"], point, outcome))
        # Of equal cost the better one last, so that a line has one height for each cost.
        found.sort(key=lambda mark: mark[:2])
        at = [(across.at(share), up.down(value)) for share, value, *_ in found]
        curves[form] = [(x, y, next_x, next_y) for (x, y), (next_x, next_y) in pairwise(at)]
        for (_, value, error, point, outcome), (x, y) in zip(found, at, strict=True):
            ends = None if error is None else (up.down(value + error), up.down(value - error))
            marks.append({"form": form, "x": x, "y": y, "ends": ends, "words": _words(form, point, outcome, values)})
    band = None
    if base is not None and base["error"] is not None:
        band = up.down(base["value"] + base["error"]), up.down(base["value"] - base["error"])
    return {
        "name": name,
        "cost": COSTS[points[0]["measure"]],
        "rows": _powers(up) if base is None else up.rows(),
        "columns": [(x, f"{label}x") for x, label in across.columns(1.0)],
        "curves": curves,
        "marks": marks,
        "base": None if base is None else up.down(base["value"]),
        "band": band,
    }


def _powers(up: Axis) -> list[Tick]:
    """Ticks of an axis of logarithms, with what they are of."""
    whole = [(up.down(k), f"{10.0**k:g}") for k in range(math.ceil(up.low), math.floor(up.high) + 1)]
    return whole if len(whole) > 1 else [(y, f"{10 ** float(k.replace(MINUS, '-')):.2g}") for y, k in up.rows()]


def _words(form: str, point: Mapping[str, Any], outcome: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    cost = cost_in_words(point["measure"], outcome["costs"][point["measure"]])
    accuracy = percent(outcome["test_top1"])
    parts = [f"{FORMS[form]} within {point['budget']}: {cost}, {outcome['share_of_base']:.3f}x"]
    parts += [accuracy] if accuracy else []
    return ", ".join([*parts, f"{values['score']} {outcome['divergence']:.3g}"])
