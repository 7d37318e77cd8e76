"""The report's strips: every candidate as a row of its blocks, kept, dropped or pooled."""

from __future__ import annotations

import string
from dataclasses import dataclass
from itertools import groupby

from .report_format import architecture, count, esc, front, percent, plural, ratio, score
from .results import BlockCost, Candidate, Results

OUTSIDE = "other sites"
# What narrow screens leave off a stage's name: "layer3" is "3" there, "stages.2" is "2".
LETTERS = f"{string.ascii_letters}._"


@dataclass(frozen=True)
class Column:
    """One place on the block axis; ``cost`` is None for a pooled site that is no block, such as a stem."""

    name: str
    stage: str
    cost: BlockCost | None


Stages = list[tuple[str, list[Column]]]


def stage_of(name: str) -> str:
    """Stage that a block belongs to: ``layer3.1`` is of ``layer3``, ``stages.2.blocks.4`` of ``stages.2``."""
    stage, dot, _ = name.rpartition(".")
    if not dot:
        return name
    return stage.removesuffix(".blocks")


def stages(results: Results) -> Stages:
    """The block axis by stage; sites that are pooled and no blocks come last."""
    columns = [Column(block.name, stage_of(block.name), block) for block in results.blocks]
    names = {block.name for block in results.blocks}
    outside = {site: None for c in results.candidates for site in c.pools if site not in names}
    columns += [Column(site, OUTSIDE, None) for site in outside]
    return [(stage, list(members)) for stage, members in groupby(columns, key=lambda column: column.stage)]


def _cell(column: Column, candidate: Candidate) -> str:
    cost = column.cost
    if column.name in candidate.drops:
        state, word = "d", "dropped"
        macs = f", saves {count(cost.macs)} MACs" if cost else ""
    elif column.name in candidate.pools:
        state, word = "p", "pooled"
        macs = f", {count(cost.macs)} + {count(cost.pool_macs)} MACs" if cost else ""
    else:
        state, word = "k", "kept"
        macs = f", {count(cost.macs)} MACs" if cost else ""
    return f'<i class="{state}" title="{esc(column.name)}: {word}{macs}"></i>'


def render_strip(candidate: Candidate, axis: Stages) -> str:
    """A row of cells, one per block."""
    groups = "".join(
        f'<span style="--n:{len(columns)}">{"".join(_cell(column, candidate) for column in columns)}</span>'
        for _, columns in axis
    )
    return f'<div class="strip" role="img" aria-label="{esc(architecture(candidate))}">{groups}</div>'


def _axis(axis: Stages) -> str:
    """Names of the stages over the cells, and block numbers where they fit."""
    every = 1 if sum(len(columns) for _, columns in axis) <= 16 else 5
    groups = []
    for stage, columns in axis:
        numbers = "".join(
            f"<i>{esc(column.name.rpartition('.')[2]) if i % every == 0 and len(columns) > 1 else ''}</i>"
            for i, column in enumerate(columns)
        )
        whole = columns[0].name if len(columns) == 1 else f"{columns[0].name} to {columns[-1].name}"
        short = stage.lstrip(LETTERS) or stage
        groups.append(
            f'<span style="--n:{len(columns)}" title="{esc(whole)}">'
            f'<b data-short="{esc(short)}">{esc(stage)}</b><span class="numbers">{numbers}</span></span>'
        )
    return f'<div class="strip axis-strip">{"".join(groups)}</div>'


def _marks(candidate: Candidate, results: Results, members: set[int]) -> str:
    """Badges of a candidate, or why it failed."""
    if score(candidate) is None:
        return f'<span class="reason">{esc(candidate.reason or "no accuracy was recorded")}</span>'
    badges = [
        ("winner", "winner", candidate.number == results.best),
        ("base", "base", candidate.number == 0),
        ("drops", "best drops-only", candidate.number == results.best_drops_only),
        ("front", "front", candidate.number in members),
        ("over", "over budget", candidate.macs > results.budget_macs),
    ]
    return "".join(f'<span class="badge {cls}">{text}</span>' for cls, text, on in badges if on)


def _row(candidate: Candidate, results: Results, axis: Stages, members: set[int]) -> str:
    number = candidate.number
    accuracy = score(candidate)
    label = f"#{number}" if accuracy is None else f'<a href="#dot-{number}">#{number}</a>'
    state = "failed" if accuracy is None else "best" if number == results.best else "complete"
    return (
        f'<tr class="row {state}" id="row-{number}" data-n="{number}"><th scope="row">{label}</th>'
        f'<td class="blocks">{render_strip(candidate, axis)}</td>'
        f'<td class="num macs">{count(candidate.macs)} '
        f"<small>{ratio(candidate.macs, results.base_macs)}</small></td>"
        f'<td class="num params">{count(candidate.params)}</td>'
        f'<td class="num acc">{"failed" if accuracy is None else percent(accuracy)}</td>'
        f'<td class="marks">{_marks(candidate, results, members)}</td></tr>'
    )


def by_accuracy(candidates: tuple[Candidate, ...]) -> list[Candidate]:
    """Best first, the cheaper of two equals first, failed ones last."""
    complete = [(-a, c.macs, c.number, c) for c in candidates if (a := score(c)) is not None]
    failed = [c for c in candidates if score(c) is None]
    return [c for *_, c in sorted(complete, key=lambda entry: entry[:3])] + sorted(failed, key=lambda c: c.number)


def render_strips(results: Results) -> str:
    """The section with one strip for each candidate."""
    if not results.candidates:
        return '<p class="empty">No candidate has been trained yet.</p>'
    axis = stages(results)
    width = sum(len(columns) for _, columns in axis)
    members = {c.number for c in front(results)}
    rows = "".join(_row(c, results, axis, members) for c in by_accuracy(results.candidates))
    names = ", ".join(
        f"{esc(stage)} ({plural(len(columns), 'site' if stage == OUTSIDE else 'block')})" for stage, columns in axis
    )
    return (
        '<ul class="legend"><li><i class="k cell"></i>kept</li><li><i class="d cell"></i>dropped</li>'
        f'<li><i class="p cell"></i>pooled</li><li class="names">left to right: {names}</li></ul>'
        '<div class="scroll" role="region" aria-label="All candidates" tabindex="0">'
        f'<table class="strips" style="--blocks:{width}"><thead><tr><th scope="col">No.</th>'
        f'<th scope="col" class="blocks">{_axis(axis)}<span class="unseen">blocks</span></th>'
        '<th scope="col" class="num">MACs</th><th scope="col" class="num">parameters</th>'
        '<th scope="col" class="num">validation accuracy</th>'
        f'<th scope="col"><span class="unseen">markers</span></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def render_costs(results: Results) -> str:
    """The table of what each block and a pool at it cost."""
    if not results.blocks:
        return '<p class="empty">The base has no blocks to pool or drop.</p>'
    widest = max(1, *(block.macs for block in results.blocks))
    rows = "".join(
        f'<tr><th scope="row">{esc(block.name)}</th>'
        f'<td class="num">{count(block.macs)}</td><td class="bar" aria-hidden="true">'
        f'<i style="width:{100 * block.macs / widest:.1f}%"></i></td>'
        f'<td class="num">{count(block.pool_macs)}</td><td>{"yes" if block.droppable else "no"}</td></tr>'
        for block in results.blocks
    )
    return (
        '<div class="scroll" role="region" aria-label="Costs of the blocks" tabindex="0">'
        '<table class="costs"><thead><tr><th scope="col">block</th><th scope="col" class="num">MACs</th>'
        '<td></td><th scope="col" class="num">MACs of a pool</th><th scope="col">droppable</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )
