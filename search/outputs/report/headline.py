"""The top of the report: what was found, and what pooling buys."""

from __future__ import annotations

from typing import Any

from ...selection import leaders
from ...types import Candidate, Results
from .figures import find, known_score, own_score, score, shared
from .sensitivity import losses
from .words import percent, points, ratio


def keeps_accuracy(candidate: Candidate, results: Results) -> bool | None:
    """Whether a candidate keeps the accuracy that was asked for; None where none was, or the base has none."""
    base, keep = find(results, 0), results.keep_accuracy
    if base is None or keep is None:
        return None
    return own_score(candidate) >= own_score(base) - keep


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
    best = find(results, results.best)
    if best is None:
        return f"Nothing within the budget of {results.budget} is complete yet"
    cost = ratio(best.macs, results.base_macs)
    how = " with shared weights" if shared(results) and best.trained is None else ""
    accuracy = f"{percent(own_score(best), 1)}{how}"
    if keeps_accuracy(best, results):
        if best.is_base:
            return f"Nothing cheaper than {results.base} is {near(results)}"
        return f"{accuracy}, {near(results)} at {cost} its MACs"
    return f"{accuracy} at {cost} the MACs of {results.base}"


def what_pooling_buys(results: Results) -> dict[str, Any] | None:
    """A winner that pools against the best without pools, or the best that pools against a winner that doesn't.

    Returns:
        Numbers of both, the first's accuracy minus the second's in points and whether that is with shared weights,
        the same of test accuracy where it is known of both, both costs, and what the second is. None where there is
        no winner, or nothing that stands against it.
    """
    best = find(results, results.best)
    if best is None:
        return None
    complete = [c for c in results.candidates if score(c) is not None]
    # The base is among those without pools, over the budget or not: it sets the accuracy to keep.
    rivals = [c for c in complete if (not c.pools if best.pools else c.pools and c.within_budget)]
    rival = leaders(rivals, results.keep_accuracy, results.measure).best
    if rival is None:
        return None
    one, other = (best, rival) if best.pools else (rival, best)
    own = all(c.trained is not None for c in (one, other))
    measure = own_score if own else known_score
    first, second = (results.test_accuracy.get(c.number) for c in (one, other))
    return {
        "one": one.number,
        "other": other.number,
        "gain": measure(one) - measure(other),
        "shared": shared(results) and not own,
        "test": None if first is None or second is None else first - second,
        "costs": " against ".join(ratio(c.macs, results.base_macs) for c in (one, other)),
        "role": "base" if other.is_base else "best drops-only" if other.drops_only else "best without pools",
    }
