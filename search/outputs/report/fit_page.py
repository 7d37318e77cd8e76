"""The HTML report of a search by fitted stand-ins: accuracy and divergence over cost, what each model is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...fit.budget import cost_in_words
from ...fit.throughput import rate_in_words
from .fit_chart import fit_charts
from .fit_words import COSTS, FORMS, bound, outcomes, percent, signed
from .page import file_text, template

__all__ = ["render_fit_report"]

# Of kinds without pools the class of their cells.
_STATES = {"linear": "m", "units": "u", "heads": "u", "thin": "u", "channels": "u"}

# Of each form the class of its line and of its marks.
CLASSES = {"best": ("front", "winner"), "no pools": ("maps", "pooled"), "drop only": ("plain", "drops")}


def render_fit_report(values: Mapping[str, Any], output: Path) -> str:
    """The whole page as text; it opens offline.

    Args:
        values: of :mod:`cp_vision.search.outputs.fit_results`.
        output: the folder that the models are in.
    """
    measures = list(dict.fromkeys(point["measure"] for point in values["points"]))
    return template("fit_report.html.j2").render(
        values=values,
        headline=headline(values),
        charts=[chart for measure in measures for chart in fit_charts(values, measure)],
        forms=FORMS,
        classes=CLASSES,
        rows=_rows(values),
        base_rates={size: rate_in_words(rate) for size, rate in values["base_rates"].items()},
        strips=[_strip(point, values) for point in values["points"]],
        kinds=list(dict.fromkeys(option["kind"] for option in values["options"])),
        places=_places(values),
        folder=output,
        style=file_text("style.css"),
    )


def headline(values: Mapping[str, Any]) -> str:
    """The cheapest model that can't be told from the base by its accuracy; where there is none, the nearest one."""
    name, base = values["base"], values["base_test_top1"]
    known = [point for point in values["points"] if point["over_base"] is not None]
    if not known or base is None:
        point = min(values["points"], key=lambda point: point["share_of_base"])
        return f"{name} at {point['share_of_base']:.2f}x: {values['score']} {point['divergence']:.2g} from the base"
    as_good = [point for point in known if -point["over_base"]["value"] <= bound(point["over_base"])]
    if as_good:
        point = min(as_good, key=lambda point: point["share_of_base"])
        end = "not distinguishable from the base's"
    else:
        point = max(known, key=lambda point: point["over_base"]["value"])
        end = f"{signed(point['over_base'])} points against the base"
    cost = f"{point['share_of_base']:.2f}x the {COSTS[point['measure']]}"
    return f"{percent(point['test_top1'])} at {cost} of {name}, {end}"


def _rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each model of the table of budgets."""
    rows = []
    for point in values["points"]:
        for form, outcome in outcomes(point):
            before = outcome["before_distillation"]
            rows.append(
                {
                    "budget": point["budget"] if form == "best" else "",
                    "form": FORMS[form],
                    "same": form != "best" and outcome["made_of"] == point["made_of"],
                    "cost": cost_in_words(point["measure"], outcome["costs"][point["measure"]]),
                    "share": f"{outcome['share_of_base']:.3f}x",
                    "divergence": f"{outcome['divergence']:.3g}",
                    "accuracy": percent(outcome["test_top1"]),
                    "over": signed(outcome["over_base"]),
                    "pools": _pools_add(point) if form == "best" else "",
                    "before": "" if before is None else f"{percent(before['test_top1'])}, {before['divergence']:.3g}",
                    "epochs": outcome["distilled_epochs"],
                    "rates": [rate_in_words(outcome["rates"][size]) for size in values["base_rates"]],
                }
            )
    return rows


def _pools_add(point: Mapping[str, Any]) -> str:
    """What pools add to the best model without, in words."""
    added, plain = point["pools_add"], point["counterparts"].get("no pools")
    if plain is not None and plain["made_of"] == point["made_of"]:
        return "nothing: no pools were chosen"
    if added is None:
        return "not known"
    text = f"{signed(added)} points"
    certain = added["error"] is not None and abs(added["value"]) > bound(added)
    return text if certain else f"{text}, not distinguishable from none"


def _strip(point: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Each block of a model: whole, left out, behind a map or a pool; halves as the upper and the lower part."""
    states: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in values["blocks"]}
    options = {(option["place"], option["kind"]): option for option in values["options"]}
    for change in point["changes"]:
        kind = change["kind"]
        state = "d" if kind == "drop" else _STATES.get(kind.partition(" ")[0].partition("/")[0], "p")
        half = options[change["place"], kind]["half"] if (change["place"], kind) in options else ""
        words = f"{change['place']}: {'left out' if kind == 'drop' else kind}"
        if half:
            states[change["place"].rpartition(".")[0]][half] = (state, words)
            continue
        first, *rest = change["blocks"]
        states[first][""] = (state, words)
        for path in rest:
            states[path][""] = ("d" if kind == "drop" else "r", words)
    halves = ("attn", "self_attention"), ("mlp", "ffn")
    has_halves = any(option["half"] for option in values["options"])
    cells = []
    for name, changed in states.items():
        if "" in changed or not has_halves:
            cells.append([changed.get("", ("k", f"{name}: kept"))])
            continue
        kept = [("k", f"{name}.{names[0]}: kept") for names in halves]
        cells.append(
            [next((changed[half] for half in names if half in changed), kept[i]) for i, names in enumerate(halves)]
        )
    return {
        "budget": point["budget"],
        "share": f"{point['share_of_base']:.3f}x",
        "made": point["made_of"],
        "cells": cells,
    }


def _places(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each kind leaves unexplained at each place, and its score alone; the least score of a place is marked."""
    places: dict[str, dict[str, Any]] = {}
    for option in values["options"]:
        places.setdefault(option["place"], {})[option["kind"]] = option
    chosen = {(change["place"], change["kind"]) for point in values["points"] for change in point["changes"]}
    found = []
    for place, by_kind in places.items():
        cells = {
            kind: {
                "unexplained": "" if o["unexplained"] is None else f"{o['unexplained']:.3f}",
                "score": f"{o['score']:.2g}",
                "chosen": (place, kind) in chosen,
            }
            for kind, o in by_kind.items()
        }
        found.append({"place": place, "cells": cells})
    return found
