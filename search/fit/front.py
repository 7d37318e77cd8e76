"""The best candidates under the additive table, for every budget at once: exact dynamic programming over blocks.

A label is a choice for the blocks so far: what it saves, the sum of its scores. At each block only labels remain that
no other beats in both, so that the labels after the last block are the whole front. Source: label-setting algorithms
for the bicriteria shortest path, Hansen, 1980; on a knapsack of blocks, LANA, Molchanov et al., ECCV 2022, and Puzzle,
Bercovich et al. 2024, solve one budget by integer programming.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..types import Measure
from .option import Candidate, Option, saved_by

__all__ = ["Front", "all_candidates"]

# Where there are more labels, the best of each cell of as many equal steps of cost stays.
_MOST = 20_000


@dataclass(frozen=True)
class _Choice:
    """What may become of blocks ``first`` to ``stop``, and whether a block of them stays."""

    first: int
    stop: int
    options: Candidate
    saved: int
    keeps: bool


@dataclass(frozen=True)
class _Labels:
    """Labels of one place, by rising savings: where each came from, and by which choice."""

    saved: np.ndarray
    score: np.ndarray
    before: np.ndarray
    choice: np.ndarray


class Front:
    """All candidates that are best for some budget, if scores of single changes added up.

    At least one block stays, whole or with a half replaced.

    Args:
        options: of a library.
        blocks: how many the base has.
        measure: of what is saved.
        score: of an option; without, its own.
    """

    def __init__(
        self,
        options: Sequence[Option],
        blocks: int,
        measure: Measure = "macs",
        score: Callable[[Option], float] | None = None,
    ) -> None:
        self._blocks = blocks
        self._choices = _choices(options, blocks, measure)
        own = score or (lambda option: option.score)
        scores = [sum(own(option) for option in choice.options) for choice in self._choices]
        start = _Labels(*(np.zeros(1, dtype=kind) for kind in (np.int64, np.float64, np.int64, np.int64)))
        none = _Labels(*(label[:0] for label in (start.saved, start.score, start.before, start.choice)))
        # By block and by whether a block stayed.
        self._labels: list[dict[bool, _Labels]] = [{False: start, True: none}]
        for stop in range(1, blocks + 1):
            ending = [i for i, choice in enumerate(self._choices) if choice.stop == stop]
            self._labels.append({kept: self._after(ending, scores, kept) for kept in (False, True)})

    def best(self, saved: int) -> Candidate | None:
        """The candidate with the lowest sum of scores that saves so much; None where none does."""
        labels = self._labels[-1][True]
        index = int(np.searchsorted(labels.saved, saved))
        return self._candidate(index) if index < len(labels.saved) else None

    @property
    def most(self) -> int:
        """What can be saved at most."""
        return int(self._labels[-1][True].saved[-1])

    def __iter__(self) -> Iterator[tuple[int, float, Candidate]]:
        """Savings, sums of scores and candidates, by rising savings."""
        labels = self._labels[-1][True]
        for i, (saved, score) in enumerate(zip(labels.saved, labels.score, strict=True)):
            yield int(saved), float(score), self._candidate(i)

    def _after(self, ending: Sequence[int], scores: Sequence[float], kept: bool) -> _Labels:
        parts = []
        for i in ending:
            choice = self._choices[i]
            for before in (False, True) if kept else (False,):
                if (before or choice.keeps) != kept:
                    continue
                labels = self._labels[choice.first][before]
                count = len(labels.saved)
                # Where it came from, and whether a block had stayed there, in one number.
                came = 2 * np.arange(count) + before
                parts.append((labels.saved + choice.saved, labels.score + scores[i], came, np.full(count, i)))
        saved, score, came, choice_of = (
            np.concatenate([part[k] for part in parts]) if parts else np.zeros(0, dtype)
            for k, dtype in enumerate((np.int64, np.float64, np.int64, np.int64))
        )
        order = np.lexsort((choice_of, score, -saved))
        falling = score[order]
        best_so_far = np.minimum.accumulate(np.concatenate([[np.inf], falling[:-1]])) if len(falling) else falling
        order = order[falling < best_so_far][::-1]
        if len(order) > _MOST:
            cells = (saved[order] - saved[order[0]]) * _MOST // (saved[order[-1]] - saved[order[0]] + 1)
            order = order[np.unique(cells, return_index=True)[1]]
        return _Labels(saved[order], score[order], came[order], choice_of[order])

    def _candidate(self, index: int) -> Candidate:
        chosen: list[Option] = []
        block, kept = self._blocks, True
        while block > 0:
            labels = self._labels[block][kept]
            choice = self._choices[labels.choice[index]]
            came = int(labels.before[index])
            index, kept, block = came // 2, bool(came % 2), choice.first
            chosen[:0] = choice.options
        return tuple(chosen)


def all_candidates(options: Sequence[Option], blocks: int) -> Iterator[Candidate]:
    """Every candidate, the base first: for small spaces."""
    starting: dict[int, list[_Choice]] = {}
    for choice in _choices(options, blocks, "macs"):
        starting.setdefault(choice.first, []).append(choice)

    def extend(first: int, kept: bool) -> Iterator[Candidate]:
        if first == blocks:
            if kept:
                yield ()
            return
        for choice in starting[first]:
            for rest in extend(choice.stop, kept or choice.keeps):
                yield choice.options + rest

    yield from extend(0, False)


def _choices(options: Sequence[Option], blocks: int, measure: Measure) -> list[_Choice]:
    """What may become of each run of blocks: it stays, something takes its place, or halves are replaced."""
    choices = [_Choice(i, i + 1, (), 0, keeps=True) for i in range(blocks)]
    choices += [_Choice(o.first, o.stop, (o,), o.saved[measure], keeps=False) for o in options if not o.half]
    for block in range(blocks):
        halves: dict[str, list[Option]] = {}
        for option in options:
            if option.half and option.first == block:
                halves.setdefault(option.half, []).append(option)
        for chosen in itertools.product(*([None, *own] for own in halves.values())):
            if some := tuple(option for option in chosen if option is not None):
                choices.append(_Choice(block, block + 1, some, saved_by(some, measure), keeps=True))
    return choices
