"""The table of what each site of the base costs, with and without a pool, and what it is worth."""

from __future__ import annotations

from ...types import BlockCost, Results
from .format import count, esc, finite, points

NONE = '<span aria-label="none">\N{EN DASH}</span>'


def _row(block: BlockCost, widest: int, results: Results, losses: bool) -> str:
    share = 100 * max(0, block.macs) / widest
    # A stem or a down-sampling stays whatever is chosen: its own cost isn't in question.
    own = count(block.macs) if block.macs else NONE
    pool = NONE if not block.poolable else count(block.pool_macs)
    cells = (
        f'<th scope="row">{esc(block.name)}</th><td class="num">{own}</td>'
        f'<td class="bar" aria-hidden="true"><i style="width:{share:.1f}%"></i></td><td class="num">{pool}</td>'
        f"<td>{'yes' if block.poolable else 'no'}</td><td>{'yes' if block.droppable else 'no'}</td>"
    )
    if losses:
        lost = finite(results.sensitivity.get(block.name))
        cells += f'<td class="num">{NONE if lost is None else points(-lost).removesuffix(" points")}</td>'
    return f"<tr>{cells}</tr>"


def render_costs(results: Results) -> str:
    """The section's table."""
    if not results.blocks:
        return '<p class="empty">The base has no blocks to pool or drop.</p>'
    widest = max(1, *(block.macs for block in results.blocks))
    losses = any(finite(results.sensitivity.get(block.name)) is not None for block in results.blocks)
    body = "".join(_row(block, widest, results, losses) for block in results.blocks)
    notes = []
    if any(not block.macs for block in results.blocks):
        notes.append("A site without MACs of its own is a stem or a down-sampling: it can be pooled and stays.")
    if any(block.poolable and block.pool_macs < 0 for block in results.blocks):
        notes.append("Below zero: a strided pool there makes what follows cheaper.")
    lost = '<th scope="col" class="num">points without it, untrained</th>' if losses else ""
    return (
        '<div class="scroll" role="region" aria-label="Costs of the sites" tabindex="0">'
        '<table class="costs"><thead><tr><th scope="col">site</th><th scope="col" class="num">MACs</th>'
        '<td></td><th scope="col" class="num">MACs that a pool adds</th><th scope="col">may be pooled</th>'
        f'<th scope="col">may be dropped</th>{lost}</tr></thead><tbody>{body}</tbody></table></div>'
        + (f'<p class="note">{" ".join(notes)}</p>' if notes else "")
    )
