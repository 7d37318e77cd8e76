"""The report's strips: every candidate as a row of its sites, kept, dropped or pooled."""

from __future__ import annotations

import math
import string
from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ...types import BlockCost, Candidate, Results
from .figures import front, partial_score, score
from .words import count, estimate, plural

OUTSIDE = "other sites"
# What narrow screens leave off a stage's name: "layer3" is "3" there, "stages.2" is "2".
LETTERS = f"{string.ascii_letters}._"
# With more sites than these only every fifth block has its number over it.
_MOST_NUMBERS = 16


@dataclass(frozen=True)
class Column:
    """One place on the axis of sites; ``cost`` is None for a pooled site that the base doesn't list."""

    name: str
    stage: str
    cost: BlockCost | None

    @property
    def stays(self) -> bool:
        """Whether it is a stem or a down-sampling, which may be pooled and no more."""
        return self.cost is not None and self.cost.macs == 0


def stage_of(name: str, blocks: Collection[str] = ()) -> str:
    """Stage that a site belongs to: ``layer3.1`` is of ``layer3``, ``stages.2.blocks.4`` of ``stages.2``.

    Args:
        name: of the site.
        blocks: names of the blocks, so that a down-sampling in one (``layer2.0.downsample``) is of its stage.
    """
    stage, dot, _ = name.rpartition(".")
    if not dot:
        return name
    return stage_of(stage) if stage in blocks else stage.removesuffix(".blocks")


def stages(results: Results) -> list[dict[str, Any]]:
    """The axis of sites by stage; pooled sites that the base doesn't list come last."""
    names = {block.name for block in results.blocks}
    columns = [Column(block.name, stage_of(block.name, names), block) for block in results.blocks]
    outside = {site: None for c in results.candidates for site in c.pools if site not in names}
    columns += [Column(site, OUTSIDE, None) for site in outside]
    every, found = 1 if len(columns) <= _MOST_NUMBERS else 5, []
    for stage, group in groupby(columns, key=lambda column: column.stage):
        members = list(group)
        first, last = members[0].name, members[-1].name
        blocks = all(column.cost is not None and not column.stays for column in members)
        found.append(
            {
                "name": stage,
                "short": stage.lstrip(LETTERS) or stage,
                "range": first if len(members) == 1 else f"{first} to {last}",
                "size": plural(len(members), "block" if blocks else "site"),
                "columns": members,
                "numbers": _numbers(members, every),
            }
        )
    return found


def _numbers(columns: list[Column], every: int) -> list[str]:
    """Numbers of a stage's blocks where they fit; down-samplings have a sign of their own and don't shift them."""
    shown = {column.name for column in [column for column in columns if not column.stays][::every]}
    sign = "\N{DOWNWARDS ARROW}" if every == 1 else ""
    numbers = [
        sign if column.stays else column.name.rpartition(".")[2] if column.name in shown else "" for column in columns
    ]
    return numbers if len(columns) > 1 else [""]


def cell(column: Column, candidate: Candidate) -> tuple[str, str]:
    """What became of a site: class and words."""
    cost, own, macs = column.cost, "", ""
    if cost is not None and not column.stays:
        own = count(cost.macs)
    if column.name in candidate.drops:
        state, word = "d", "dropped"
        macs = own and f", saves {own} MACs"
    elif column.name in candidate.pools:
        state, word = "p", "pooled"
        if cost is not None:
            added = count(cost.pool_macs) if cost.pool_macs < 0 else f"+ {count(cost.pool_macs)}"
            macs = f", {own} {added} MACs" if own else f", {added} MACs"
    else:
        state, word = "k", "kept"
        macs = own and f", {own} MACs"
    return f"{state} stays" if column.stays else state, f"{column.name}: {word}{macs}"


def by_accuracy(candidates: tuple[Candidate, ...]) -> list[Candidate]:
    """Best first: the finalists, the other complete ones, those stopped early, the failed.

    The cheaper of two equals comes first.
    """

    def rank(candidate: Candidate) -> tuple[int, float, int, int]:
        accuracy, partial = score(candidate), partial_score(candidate)
        last = (candidate.macs, candidate.number)
        if accuracy is not None:
            return (0 if candidate.by_seed else 1, -accuracy, *last)
        if candidate.state == "stopped":
            return (2, math.inf if partial is None else -partial, *last)
        return 3, 0.0, 0, candidate.number

    return sorted(candidates, key=rank)


def strip_rows(results: Results) -> list[dict[str, Any]]:
    """What the table says of each candidate, the best first: accuracies, state, and class and text of its badges."""
    members, found = {c.number for c in front(results)}, []
    for c in by_accuracy(results.candidates):
        accuracy, best = score(c), c.number == results.best
        badges = [
            ("winner", "winner", best),
            ("base", "base", c.is_base),
            ("drops", "best drops-only", c.number == results.best_drops_only),
            ("front", "front", c.number in members),
            ("over", "over budget", not c.within_budget),
        ]
        if accuracy is None:
            badges = [("stopped", "stopped early", c.state == "stopped")]
        found.append(
            {
                "candidate": c,
                "accuracy": None if accuracy is None else estimate(c, results, seeds=False),
                "seeds": len(c.by_seed),
                "partial": partial_score(c),
                "state": c.state
                if c.state == "stopped"
                else "failed"
                if accuracy is None
                else "best"
                if best
                else "complete",
                "badges": [(cls, text) for cls, text, on in badges if on],
            }
        )
    return found
