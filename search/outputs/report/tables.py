"""The report's smaller tables: baselines, what mattered, and the facts at its foot."""

from __future__ import annotations

from typing import Any

from ...types import BlockCost, Candidate, Results
from .figures import find, shared
from .words import (
    count,
    estimate,
    limit_as_written,
    limits_of,
    milliseconds,
    percent,
    ratio,
    settings_of,
    tally,
    test_estimate,
)

# Text of a cell, and what stands small behind it.
Cell = tuple[str, str]
# A column in which nobody has anything to say is left out.
UNSAID = {"test accuracy": "not measured", "time of an image": "not measured", "settings": "none"}
SETTINGS = {"mode": "mode of the pools", "support_range": "range of supports", "img_size": "image size"}


def baselines(results: Results) -> dict[str, Any]:
    """Those that have a role side by side: titles, rows of role, candidate and cells, roles nobody has."""
    roles = {"winner": results.best, "base": 0, "best drops-only": results.best_drops_only}
    if results.pair:
        pooled, unpooled = results.pair
        if pooled != results.best:
            roles["best that pools"] = pooled
        roles[f"#{pooled} without pools"] = unpooled
    found = {number: c for number in roles.values() if (c := find(results, number)) is not None}
    rows = [
        (" and ".join(role for role, other in roles.items() if other == number), c, _cells(c, results))
        for number, c in found.items()
    ]
    titles = ["validation accuracy", *(["with shared weights"] if shared(results) else []), "test accuracy", "MACs"]
    titles += ["parameters", "time of an image", "settings", "pools", "drops"]
    said = [t for t in titles if t not in UNSAID or any(cells[t][0] != UNSAID[t] for _, _, cells in rows)]
    return {"titles": said, "rows": rows, "missing": [role for role, number in roles.items() if number not in found]}


def _cells(candidate: Candidate, results: Results) -> dict[str, Cell]:
    """Everything that may be said of an architecture."""
    accuracy = estimate(candidate, results)
    return {
        "validation accuracy": ("not trained" if shared(results) and not candidate.by_seed else accuracy, ""),
        "with shared weights": ("" if candidate.accuracy is None else percent(candidate.accuracy), ""),
        "test accuracy": (test_estimate(candidate, results) or "not measured", ""),
        "MACs": (count(candidate.macs), ratio(candidate.macs, results.base_macs)),
        "parameters": (count(candidate.params), ""),
        "time of an image": _latency(candidate, results),
        "settings": (settings_of(candidate) or "none", ""),
        "pools": _sites(candidate.pools),
        "drops": _sites(candidate.drops),
    }


def _sites(names: tuple[str, ...]) -> Cell:
    """How many, and which."""
    return (str(len(names)), ", ".join(names)) if names else ("none", "")


def _latency(candidate: Candidate, results: Results) -> Cell:
    """Measured on the whole model, or else predicted from its parts."""
    measured, predicted = results.measured_latency.get(candidate.number), candidate.latency
    if measured is not None:
        return milliseconds(measured), ""
    return ("not measured", "") if predicted is None else (milliseconds(predicted), "predicted")


def shares(results: Results) -> list[dict[str, Any]]:
    """How much each site or setting matters, the most important first; empty where nothing is known."""
    known = {name: share for name, share in results.importance.items() if share > 0}
    most, blocks = max(known.values(), default=1.0), {block.name: block for block in results.blocks}
    return [
        {"name": SETTINGS.get(name, name), "choices": _choices(blocks.get(name)), "share": share, "part": share / most}
        for name, share in sorted(known.items(), key=lambda item: -item[1])
    ]


def _choices(block: BlockCost | None) -> str:
    """What may become of a site beside being kept: ``pool or drop``, ``pool``, ``drop``; empty for what is no site."""
    if block is None:
        return ""
    return " or ".join([*(["pool"] if block.poolable else []), *(["drop"] if block.droppable else [])])


def facts(results: Results) -> list[tuple[str, object]]:
    """What the search was, by name."""
    hours = sum(c.seconds for c in results.candidates) / 3600
    took = f"{hours:.1f} hours in all" if hours >= 1 else f"{60 * hours:.0f} minutes in all"
    return [
        ("base", results.base),
        ("data set", results.dataset),
        ("recipe", results.recipe),
        ("seed", results.seed),
        *(("budget", limit_as_written(limit)) for limit in limits_of(results)),
        *([] if results.keep_accuracy is None else [("accuracy to keep", f"{results.keep_accuracy:g} points")]),
        ("evaluator", results.evaluator),
        ("candidates", tally(results)),
        ("scoring" if results.evaluator != "train" else "training", took),
    ]
