"""What mattered: the share of each site and setting in the differences of accuracy, as bars."""

from __future__ import annotations

from ...types import Results
from .format import esc, finite, plural
from .words import SETTINGS, choices_at

# Further ones are folded away: of a deep network most sites hardly matter.
_SHOWN = 12


def _share(share: float) -> str:
    return "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _bar(name: str, share: float, largest: float, results: Results) -> str:
    choices = choices_at(name, results.blocks)
    # A long path breaks where a part of it ends.
    title = esc(SETTINGS.get(name, name)).replace(".", ".<wbr>")
    small = f" <small>{esc(choices)}</small>" if choices else ""
    return (
        f'<li><span class="of">{title}{small}</span>'
        f'<span class="track" aria-hidden="true"><i style="width:{100 * share / largest:.1f}%"></i></span>'
        f'<span class="share">{_share(share)}</span></li>'
    )


def render_importance(results: Results) -> str:
    """The section's bars, the most important first; empty where nothing is known."""
    known = {name: share for name, given in results.importance.items() if (share := finite(given)) and share > 0}
    if not known:
        return ""
    ranked = sorted(known.items(), key=lambda item: -item[1])
    bars = [_bar(name, share, ranked[0][1], results) for name, share in ranked]
    rest = ""
    if len(bars) > _SHOWN + 1:
        together = sum(share for _, share in ranked[_SHOWN:])
        rest = (
            f"<details><summary>{plural(len(bars) - _SHOWN, 'other')}, {_share(together)} together</summary>"
            f'<ol class="shares" start="{_SHOWN + 1}">{"".join(bars[_SHOWN:])}</ol></details>'
        )
        bars = bars[:_SHOWN]
    return (
        f'<ol class="shares">{"".join(bars)}</ol>{rest}'
        '<p class="note">How much of the differences in accuracy between the candidates goes back to what was chosen '
        "at each site, and for the candidate as a whole.</p>"
    )
