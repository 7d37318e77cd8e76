"""The files of a search by fitted stand-ins: results, tables, report, and the card of each model."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cp_vision.shared.files import write_text

from ..fit.budget import cost_in_words
from ..fit.option import describe
from ..fit.result import Compressed, Point
from .fit_results import RESULTS
from .report.fit_page import render_fit_report

__all__ = ["model_card", "write_fit_results"]


def write_fit_results(values: Mapping[str, Any], output: Path) -> None:
    """Write ``results.json``, ``front.csv``, ``options.csv`` and ``report.html``.

    Args:
        values: of :mod:`.fit_results`.
        output: the output folder.

    Raises:
        OSError: it can't be written.
    """
    write_text(output / RESULTS, json.dumps(values, indent=2) + "\n")
    write_text(output / "front.csv", _csv(_front(values)))
    write_text(output / "options.csv", _csv(_options(values)))
    write_text(output / "report.html", render_fit_report(values, output))


def _front(values: Mapping[str, Any]) -> Iterable[Sequence[Any]]:
    """A row for the base, and for each budget the best and its counterparts."""
    yield (
        *("budget", "form", "macs", "params", "latency_ms", "share_of_base", values["score"], "test_top1", "error"),
        *("over_base", "error_over_base", "refitted", "distilled_epochs"),
        *(f"images_per_second_at_{size}" for size in values["base_rates"]),
        "made_of",
    )
    own, costs = values["base_test_top1"] or {}, values["base_costs"]
    rates = values["base_rates"].values()
    yield "", "base", *_costs(costs), 1, 0, own.get("value"), own.get("error"), 0, 0, False, 0, *rates, ""
    for point in values["points"]:
        for form, outcome in (("best", point), *point["counterparts"].items()):
            top1, over = outcome["test_top1"] or {}, outcome["over_base"] or {}
            yield (
                *(point["budget"], form, *_costs(outcome["costs"]), outcome["share_of_base"], outcome["divergence"]),
                *(top1.get("value"), top1.get("error"), over.get("value"), over.get("error"), outcome["refitted"]),
                *(outcome["distilled_epochs"], *(outcome["rates"].get(size) for size in values["base_rates"])),
                outcome["made_of"],
            )


def _options(values: Mapping[str, Any]) -> Iterable[Sequence[Any]]:
    yield "place", "kind", "macs_saved", "params_saved", "unexplained", values["score"]
    for option in values["options"]:
        saved = option["saved"]
        yield option["place"], option["kind"], saved["macs"], saved["params"], option["unexplained"], option["score"]


def _costs(costs: Mapping[str, int]) -> tuple[int, int, float | None]:
    nanoseconds = costs.get("latency")
    return costs["macs"], costs["params"], None if nanoseconds is None else nanoseconds / 1e6


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def model_card(point: Point, found: Compressed, base: str, folder: Path, command: str) -> str:
    """The ``README.md`` of a model's folder."""
    cost = point.measure
    rows = [("Base", f"{base}, {cost_in_words(cost, found.base_costs[cost])}, test top-1 {found.base_accuracy} %")]
    for outcome in (point.best, *point.counterparts.values()):
        share = outcome.costs[cost] / found.base_costs[cost]
        accuracy = f"test top-1 {outcome.accuracy} %"
        rows.append((outcome.name, f"{share:.3f}x, {found.measure} {outcome.score:.4g}, {accuracy}"))
    rows.append(("Made of", describe(point.best.candidate)))
    table = "\n".join(f"| {name} | {text} |" for name, text in rows)
    trained = f", then {point.best.epochs} epochs of distillation from the base" if point.best.epochs else ""
    return f"""# {base} within {point.budget}, by cp-search

Fitted in closed form to {found.images - found.held_out} unlabelled images{trained}; {found.measure} is that from the
base on {found.held_out} others. ± is the standard error over test images.

| | |
|---|---|
{table}

```python
import timm, cp_vision
model = timm.create_model("local-dir:{folder}", pretrained=True)
```

Made by: `{command}`
"""
