"""Real scores around what the additive table finds: the table learns from each, and proposes the next.

Scores of single changes don't add up: a change costs more where others went before. So each candidate that was scored
corrects the table (a factor for each option, by ridge regression), and the exact front of the corrected table gives the
next candidate, until it finds nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..types import Measure
from .front import Front, all_candidates
from .option import Candidate, Option, saved_by

__all__ = ["TRIES", "Explored", "expected_best", "explore"]

# Candidates with real scores, where nobody says otherwise.
TRIES = 12

# How far factors are drawn towards that of all, beside errors of 100 %.
_RIDGE = 0.1
_SPACE = 5_000

Explored = list[tuple[float, Candidate]]


def explore(
    options: Sequence[Option],
    blocks: int,
    saved: int,
    score: Callable[[Candidate], float],
    tries: int,
    known: Mapping[Candidate, float] | None = None,
    measure: Measure = "macs",
    prior: Mapping[Candidate, float] | None = None,
) -> Explored:
    """Candidates that save enough, with their real scores, the best first.

    Args:
        options: to choose from.
        blocks: how many the base has.
        saved: what to save at least.
        score: the real score of a candidate; lower is better.
        tries: how many to score at most.
        known: scores that are there already; those of these options that save enough are learned from as well.
        measure: of what is saved.
        prior: scores of candidates in another search, which proposals are learned from and nothing else.

    Returns:
        What was scored or known; empty where nothing saves so much.
    """
    # Of models that give no numbers the score is infinite.
    options = [option for option in options if option.score < float("inf")]
    allowed = set(options)
    prior = {c: v for c, v in (prior or {}).items() if allowed.issuperset(c)}
    if (begin := expected_best(options, blocks, saved, prior, measure)) is None:
        return []
    start = begin[0]
    if (small := _all_within(options, blocks, saved, tries, measure)) is not None:
        return _sorted({candidate: score(candidate) for candidate in small})
    scored = {c: v for c, v in (known or {}).items() if allowed.issuperset(c) and saved_by(c, measure) >= saved}
    most = len(scored.keys() - {start}) + tries
    scored[start] = score(start)
    while len(scored) < most:
        found = _unseen(options, blocks, saved, measure, _corrected({**prior, **scored}), scored)
        if found is None:
            break
        scored[found] = score(found)
    return _sorted(scored)


def expected_best(
    options: Sequence[Option], blocks: int, saved: int, known: Mapping[Candidate, float], measure: Measure = "macs"
) -> tuple[Candidate, float, bool] | None:
    """What should be best of all that saves so much, its score, and whether that is a known one; nothing is scored.

    Args:
        options: to choose from, all with finite scores.
        blocks: how many the base has.
        saved: what to save at least.
        known: scores of candidates of these options; those that save enough correct the table.
        measure: of what is saved.
    """
    known = {candidate: value for candidate, value in known.items() if saved_by(candidate, measure) >= saved}
    score = _corrected(known)
    if (found := Front(options, blocks, measure, score).best(saved)) is None:
        return None
    choices = [(value, candidate, True) for candidate, value in known.items()]
    if found not in known:
        choices.append((sum(map(score, found)), found, False))
    value, candidate, is_known = min(choices, key=lambda choice: choice[0])
    return candidate, value, is_known


def _sorted(scored: dict[Candidate, float]) -> Explored:
    return sorted(((value, candidate) for candidate, value in scored.items()), key=lambda pair: pair[0])


def _all_within(
    options: Sequence[Option], blocks: int, saved: int, tries: int, measure: Measure
) -> list[Candidate] | None:
    """All candidates that save enough, where these are few."""
    found = []
    for number, candidate in enumerate(all_candidates(options, blocks)):
        if saved_by(candidate, measure) >= saved:
            found.append(candidate)
        if len(found) > tries or number > _SPACE:
            return None
    return found


def _corrected(scored: Mapping[Candidate, float]) -> Callable[[Option], float]:
    """Scores of options times factors by which their sums are what was measured, about."""
    rows = [
        (candidate, value)
        for candidate, value in scored.items()
        if 0 < value < float("inf") and any(option.score for option in candidate)
    ]
    keys = sorted({option.key for candidate, _ in rows for option in candidate})
    if not rows or not keys:
        return lambda option: option.score
    ratios = [value / max(sum(option.score for option in candidate), 1e-300) for candidate, value in rows]
    common = float(np.median(ratios))
    place = {key: i for i, key in enumerate(keys)}
    shares = np.zeros((len(rows), len(keys)))
    for row, (candidate, value) in enumerate(rows):
        for option in candidate:
            shares[row, place[option.key]] += option.score / value
    left = 1 - common * shares.sum(1)
    # As many unknowns as options, few rows: the dual form.
    weights = np.linalg.solve(shares @ shares.T + _RIDGE**2 * np.eye(len(rows)) * np.square(shares).sum(1).mean(), left)
    own = common + shares.T @ weights
    factors = {key: max(float(own[place[key]]), 0.1 * common) for key in keys}
    return lambda option: option.score * factors.get(option.key, common)


def _unseen(
    options: Sequence[Option],
    blocks: int,
    saved: int,
    measure: Measure,
    score: Callable[[Option], float],
    seen: dict[Candidate, float],
) -> Candidate | None:
    """The best candidate under the corrected table; where it was seen, the best that lacks one of its options."""
    best = Front(options, blocks, measure, score).best(saved)
    if best is None or best not in seen:
        return best
    others = []
    for banned in best:
        other = Front([option for option in options if option is not banned], blocks, measure, score).best(saved)
        if other is not None and other not in seen:
            others.append((sum(score(option) for option in other), other))
    return min(others, key=lambda pair: pair[0])[1] if others else None
