"""What a search by fitted stand-ins found as plain values: ``results.json``, of which report and table are made.

Of all budgets that were asked for of one library: a further one joins those that are there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cp_vision.shared.errors import UserError

from ..fit.accuracy import Accuracy
from ..fit.option import Option, describe
from ..fit.result import Compressed, Outcome, Point
from .fit_schema import Results

__all__ = ["joined", "point_values", "read_results", "values_of"]

RESULTS = "results.json"
FORMAT = 2


def values_of(found: Compressed, blocks: Sequence[str], **about: Any) -> dict[str, Any]:
    """Everything that the report shows.

    Accuracies are top-1 in percent with standard errors over test images, and over pairs of these for differences;
    costs are MACs, parameters, and nanoseconds of one image.

    Args:
        found: by the search.
        blocks: paths of the base's blocks.
        **about: what it was: ``base``, ``dataset``, ``command`` and so on.
    """
    return {
        "format": FORMAT,
        "evaluator": "fit",
        **about,
        "base_costs": dict(found.base_costs),
        "base_test_top1": _accuracy(found.base_accuracy),
        "base_rates": _rates(found.base_rates),
        "score": found.measure,
        "images": found.images,
        "held_out": found.held_out,
        "blocks": list(blocks),
        "points": [point_values(point, found) for point in found.points],
        "options": [_option(option) for option in found.options],
        "seconds": dict(found.seconds),
    }


def point_values(point: Point, found: Compressed) -> dict[str, Any]:
    """One budget: the best model and its counterparts."""
    architecture = point.architecture
    return {
        "budget": point.budget,
        "measure": point.measure,
        "limit": point.limit,
        **_outcome(point.best, point, found),
        "architecture": None if architecture is None else json.loads(architecture.to_json()),
        "pools_add": _accuracy(point.pools_add),
        "counterparts": {name: _outcome(outcome, point, found) for name, outcome in point.counterparts.items()},
    }


def joined(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """New results with the budgets of old ones that weren't asked for again, the largest budget of a measure first.

    Args:
        old: of the same library; None where there are none.
        new: what was found now.
    """
    asked = {point["budget"] for point in new["points"]}
    kept = [point for point in (old or {}).get("points", []) if point["budget"] not in asked]
    points = sorted([*new["points"], *kept], key=lambda point: (point["measure"], -point["limit"]))
    # A latency that is known from before stays known.
    costs = {**(old or {}).get("base_costs", {}), **new["base_costs"]}
    return {**new, "base_costs": costs, "points": points}


def read_results(folder: Path) -> dict[str, Any] | None:
    """The results in an output folder; None where there are none.

    Raises:
        UserError: they can't be read, or are of another version.
    """
    path = folder / RESULTS
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} can't be read ({error}); choose another --output") from error
    if not isinstance(values, dict) or values.get("evaluator") != "fit" or values.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is of another search or version of cp-vision; choose another --output")
    try:
        Results.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{str(path)!r} is damaged: {where}: {first['msg']}; move it away, and cp-search resume makes it "
            "anew from the library"
        ) from error
    return values


def _outcome(outcome: Outcome, point: Point, found: Compressed) -> dict[str, Any]:
    cost, base = outcome.costs[point.measure], found.base_costs[point.measure]
    own, of_base = outcome.accuracy, found.base_accuracy
    before = outcome.before
    return {
        "made_of": describe(outcome.candidate),
        "changes": [{"place": o.place, "kind": o.kind, "blocks": list(o.blocks)} for o in outcome.candidate],
        "costs": dict(outcome.costs),
        "share_of_base": cost / base,
        "divergence": outcome.score,
        "refitted": outcome.refitted,
        "distilled_epochs": outcome.epochs,
        "test_top1": _accuracy(own),
        "over_base": None if own is None or of_base is None else _accuracy(own.over(of_base)),
        "rates": _rates(outcome.rates),
        "before_distillation": None
        if before is None
        else {"divergence": before.score, "test_top1": _accuracy(before.accuracy)},
    }


def _accuracy(accuracy: Accuracy | None) -> dict[str, float | None] | None:
    return None if accuracy is None else {"value": accuracy.value, "error": accuracy.error}


def _rates(rates: Mapping[int, float]) -> dict[str, float]:
    """Images a second by batch size."""
    return {str(size): rate for size, rate in rates.items()}


def _option(option: Option) -> dict[str, Any]:
    values = dataclasses.asdict(option)
    return {name: values[name] for name in ("place", "kind", "half", "blocks", "saved", "unexplained", "score")}
