"""What a search found as plain values, for ``results.json``."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..types import Candidate, Results
from ..uncertainty import Difference, standard_error, test_difference, validation_difference

__all__ = ["summarize"]


def summarize(results: Results) -> dict[str, Any]:
    """The winner, the base, the pair that shows what pooling buys, and the differences between them.

    Accuracies are top-1 in percent, differences in percent points with standard errors over trainings and half the
    widths of 95 % intervals; what isn't known is None.
    """
    by_number = {c.number: c for c in results.candidates if c.score is not None}
    base, best = by_number.get(0), by_number.get(-1 if results.best is None else results.best)
    pooled, unpooled = (by_number[number] for number in results.pair) if results.pair else (None, None)
    return {
        "base": None if base is None else _figures(base, results),
        "winner": None if best is None else _figures(best, results),
        "winner_over_base": _differences(best, base, results),
        "pooled": None if pooled is None else _figures(pooled, results),
        "unpooled_counterpart": None if unpooled is None else _figures(unpooled, results),
        "what_pooling_buys": _differences(pooled, unpooled, results),
        "model": results.base,
        "dataset": results.dataset,
        "budgets": [dataclasses.asdict(limit) for limit in results.limits],
        "keep_accuracy": results.keep_accuracy,
        "evaluator": results.evaluator,
        "seed": results.seed,
        "candidates": len(results.candidates),
        "command": results.command,
    }


def _figures(candidate: Candidate, results: Results) -> dict[str, Any]:
    return {
        "number": candidate.number,
        "pools": candidate.pools,
        "drops": candidate.drops,
        "settings": dict(candidate.settings),
        "macs": candidate.macs,
        "params": candidate.params,
        "latency_ms": results.measured_latency.get(candidate.number),
        "within_budget": candidate.within_budget,
        "validation_top1": candidate.score,
        "standard_error": standard_error(candidate, results),
        "validation_top1_by_seed": dict(candidate.by_seed),
        "test_top1_by_seed": dict(results.test_accuracy.get(candidate.number, {})),
    }


def _differences(one: Candidate | None, other: Candidate | None, results: Results) -> dict[str, Any] | None:
    if one is None or other is None:
        return None
    return {
        "validation": _difference(validation_difference(one, other, results)),
        "test": _difference(test_difference(one, other, results)),
    }


def _difference(found: Difference | None) -> dict[str, Any] | None:
    return None if found is None else {**dataclasses.asdict(found), "distinguishable": found.distinguishable}
