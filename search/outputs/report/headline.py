"""The top of the report: what was found, and what pooling buys."""

from __future__ import annotations

from typing import Any

from ...selection import keeps_accuracy
from ...types import Candidate, Results
from ...uncertainty import test_difference, validation_difference
from .figures import find, shared
from .sensitivity import losses
from .words import compared, estimate, points, ratio

__all__ = ["against_base", "headline", "keeps", "near", "pooling", "what_pooling_buys"]


def keeps(candidate: Candidate, results: Results) -> bool | None:
    """Whether a candidate keeps the accuracy that was asked for; None where none was, or the base has none."""
    base = find(results, 0)
    if base is None or results.keep_accuracy is None:
        return None
    return keeps_accuracy(candidate, base, results.candidates, results.keep_accuracy)


def near(results: Results) -> str:
    """The accuracy to keep in words."""
    keep = results.keep_accuracy or 0.0
    return f"within {keep:g} {'point' if keep == 1 else 'points'} of the base" if keep else "as accurate as the base"


def headline(results: Results) -> str:
    """What was found in one sentence; the page's title as well."""
    if results.evaluator == "sensitivity":
        found = losses(results)
        if not found:
            return f"{results.base}, untrained"
        least = min(found, key=lambda loss: loss.lost)
        return f"{results.base} misses {least.name} least: {points(-least.lost)} without it, untrained"
    best, base = find(results, results.best), find(results, 0)
    if best is None:
        return f"Nothing within the budget of {results.budget} is complete yet"
    cost = ratio(best.macs, results.base_macs)
    how = " with shared weights" if shared(results) and not best.by_seed else ""
    accuracy = f"{estimate(best, results, 1, seeds=False)}{how}"
    if keeps(best, results):
        if best.is_base:
            return f"Nothing cheaper than {results.base} is {near(results)}"
        return f"{accuracy}, {near(results)} at {cost} its MACs"
    if best.is_base or base is None:
        return f"{accuracy} at {cost} the MACs of {results.base}"
    return f"{accuracy} at {cost} the MACs of {results.base}, which has {estimate(base, results, 1, seeds=False)}"


def against_base(results: Results) -> str:
    """How the winner compares with the base; empty where it is the base, or one of them isn't complete."""
    best, base = find(results, results.best), find(results, 0)
    if best is None or base is None or best.is_base:
        return ""
    return compared(validation_difference(best, base, results))


def what_pooling_buys(results: Results) -> dict[str, Any] | None:
    """A candidate that pools against the same without pools: the winner, or the best that pools where that doesn't.

    Returns:
        Numbers of both, the difference of their validation and test accuracies in words (empty where it wasn't
        measured), whether the first is the winner, and both costs. None where one of them isn't complete.
    """
    one, other = (find(results, number) for number in results.pair or (None, None))
    if one is None or other is None:
        return None
    found, test = validation_difference(one, other, results), test_difference(one, other, results)
    return {
        "one": one.number,
        "other": other.number,
        "gain": compared(found),
        "test": "" if test is None else compared(test),
        "costs": " against ".join(ratio(c.macs, results.base_macs) for c in (one, other)),
        "wins": one.number == results.best,
    }


def pooling(results: Results) -> list[str]:
    """What pooling buys in plain text: on the validation split, on the test split, and who against whom."""
    pair = what_pooling_buys(results)
    if pair is None:
        return ["not known: nothing that pools is complete together with the same without pools"]
    who = "the winner" if pair["wins"] else "the best that pools"
    return [
        f"{pair['gain']} (validation)",
        *([f"{pair['test']} (test)"] if pair["test"] else []),
        f"that is {who}, #{pair['one']}, against the same without pools, #{pair['other']}, at {pair['costs']} MACs",
    ]
