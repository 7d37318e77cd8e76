"""The report's strips: every candidate as a row of its sites, kept, dropped or pooled."""

from __future__ import annotations

import math
import string
from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby

from ...types import BlockCost, Candidate, Results
from .format import count, esc, finite, front, partial_score, percent, plural, ratio, score
from .words import accuracy_name, architecture, settings_of, shared

OUTSIDE = "other sites"
# What narrow screens leave off a stage's name: "layer3" is "3" there, "stages.2" is "2".
LETTERS = f"{string.ascii_letters}._"


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


Stages = list[tuple[str, list[Column]]]


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


def stages(results: Results) -> Stages:
    """The axis of sites by stage; pooled sites that the base doesn't list come last."""
    names = {block.name for block in results.blocks}
    columns = [Column(block.name, stage_of(block.name, names), block) for block in results.blocks]
    outside = {site: None for c in results.candidates for site in c.pools if site not in names}
    columns += [Column(site, OUTSIDE, None) for site in outside]
    return [(stage, list(members)) for stage, members in groupby(columns, key=lambda column: column.stage)]


def _cell(column: Column, candidate: Candidate) -> str:
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
    return f'<i class="{state}{" stays" if column.stays else ""}" title="{esc(column.name)}: {word}{macs}"></i>'


def render_strip(candidate: Candidate, axis: Stages) -> str:
    """A row of cells, one per site."""
    groups = "".join(
        f'<span style="--n:{len(columns)}">{"".join(_cell(column, candidate) for column in columns)}</span>'
        for _, columns in axis
    )
    return f'<div class="strip" role="img" aria-label="{esc(architecture(candidate))}">{groups}</div>'


def _number(column: Column) -> str:
    return "\N{DOWNWARDS ARROW}" if column.stays else column.name.rpartition(".")[2]


def _axis(axis: Stages) -> str:
    """Names of the stages over the cells, and numbers of the blocks where they fit."""
    every = 1 if sum(len(columns) for _, columns in axis) <= 16 else 5
    groups = []
    for stage, columns in axis:
        # Down-samplings have a sign of their own and don't shift the numbers of the blocks.
        numbered = [column for column in columns if not column.stays]
        shown = {column.name for i, column in enumerate(numbered) if i % every == 0} | {
            column.name for column in columns if column.stays and every == 1
        }
        numbers = "".join(
            f"<i>{esc(_number(column)) if column.name in shown and len(columns) > 1 else ''}</i>" for column in columns
        )
        whole = columns[0].name if len(columns) == 1 else f"{columns[0].name} to {columns[-1].name}"
        short = stage.lstrip(LETTERS) or stage
        groups.append(
            f'<span style="--n:{len(columns)}" title="{esc(whole)}">'
            f'<b data-short="{esc(short)}">{esc(stage)}</b><span class="numbers">{numbers}</span></span>'
        )
    return f'<div class="strip axis-strip">{"".join(groups)}</div>'


def _marks(candidate: Candidate, results: Results, members: set[int]) -> str:
    """Badges of a candidate, or why it failed, and what else was chosen for it."""
    settings = settings_of(candidate)
    small = f'<small class="settings">{esc(settings)}</small>' if settings else ""
    if candidate.state == "stopped":
        return f'<span class="badge stopped">stopped early</span>{small}'
    if score(candidate) is None:
        return f'<span class="reason">{esc(candidate.reason or "no accuracy was recorded")}</span>{small}'
    badges = [
        ("winner", "winner", candidate.number == results.best),
        ("base", "base", candidate.is_base),
        ("drops", "best drops-only", candidate.number == results.best_drops_only),
        ("front", "front", candidate.number in members),
        ("over", "over budget", not candidate.within_budget),
    ]
    return "".join(f'<span class="badge {cls}">{text}</span>' for cls, text, on in badges if on) + small


def _accuracy(candidate: Candidate) -> str:
    accuracy, partial = score(candidate), partial_score(candidate)
    if accuracy is not None:
        return percent(accuracy)
    if candidate.state != "stopped":
        return "failed"
    return "unknown" if partial is None else f"<small>partial</small> {percent(partial)}"


def _row(candidate: Candidate, results: Results, axis: Stages, members: set[int]) -> str:
    number, accuracy = candidate.number, score(candidate)
    label = f"#{number}" if accuracy is None else f'<a href="#dot-{number}">#{number}</a>'
    if accuracy is None:
        state = "stopped" if candidate.state == "stopped" else "failed"
    else:
        state = "best" if number == results.best else "complete"
    trained = ""
    if shared(results):
        own = finite(candidate.trained)
        trained = f'<td class="num own">{"" if own is None or accuracy is None else percent(own)}</td>'
    return (
        f'<tr class="row {state}" id="row-{number}" data-n="{number}"><th scope="row">{label}</th>'
        f'<td class="blocks">{render_strip(candidate, axis)}</td>'
        f'<td class="num macs">{count(candidate.macs)} '
        f"<small>{ratio(candidate.macs, results.base_macs)}</small></td>"
        f'<td class="num params">{count(candidate.params)}</td>'
        f'<td class="num acc">{_accuracy(candidate)}</td>{trained}'
        f'<td class="marks">{_marks(candidate, results, members)}</td></tr>'
    )


def by_accuracy(candidates: tuple[Candidate, ...]) -> list[Candidate]:
    """Best first: those with a training of their own, the other complete ones, those stopped early, the failed.

    The cheaper of two equals comes first.
    """

    def rank(candidate: Candidate) -> tuple[int, float, int, int]:
        accuracy, partial, own = score(candidate), partial_score(candidate), finite(candidate.trained)
        last = (candidate.macs, candidate.number)
        if accuracy is not None:
            return (1, -accuracy, *last) if own is None else (0, -own, *last)
        if candidate.state == "stopped":
            return (2, math.inf if partial is None else -partial, *last)
        return 3, 0.0, 0, candidate.number

    return sorted(candidates, key=rank)


def _legend(axis: Stages) -> str:
    def inside(columns: list[Column]) -> str:
        blocks = all(column.cost is not None and not column.stays for column in columns)
        return plural(len(columns), "block" if blocks else "site")

    names = ", ".join(f"{esc(stage)} ({inside(columns)})" for stage, columns in axis)
    stays = any(column.stays for _, columns in axis for column in columns)
    return (
        '<ul class="legend"><li><i class="k cell"></i>kept</li><li><i class="d cell"></i>dropped</li>'
        '<li><i class="p cell"></i>pooled</li>'
        + ('<li><i class="k stays cell"></i>stem or down-sampling, as it was</li>' if stays else "")
        + f'<li class="names">left to right: {names}</li></ul>'
    )


def render_strips(results: Results) -> str:
    """The section with one strip for each candidate."""
    if not results.candidates:
        return '<p class="empty">No candidate has been trained yet.</p>'
    axis = stages(results)
    width = sum(len(columns) for _, columns in axis)
    members = {c.number for c in front(results)}
    rows = "".join(_row(c, results, axis, members) for c in by_accuracy(results.candidates))
    own = '<th scope="col" class="num">after its own training</th>' if shared(results) else ""
    return (
        f'{_legend(axis)}<div class="scroll" role="region" aria-label="All candidates" tabindex="0">'
        f'<table class="strips{" shared" if own else ""}" style="--blocks:{width}"><thead><tr><th scope="col">No.</th>'
        f'<th scope="col" class="blocks">{_axis(axis)}<span class="unseen">sites</span></th>'
        '<th scope="col" class="num">MACs</th><th scope="col" class="num">parameters</th>'
        f'<th scope="col" class="num">{accuracy_name(results)}</th>{own}'
        f'<th scope="col"><span class="unseen">markers</span></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
