"""What the trained base loses without each block, as bars in the order of the blocks: in the page, and as a file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from ...types import Results
from .axis import Axis, rows
from .format import esc, find, finite, plural, points
from .strips import stage_of

# The file stands alone, so it brings its colours; they are those of the page in light mode.
_FILE_STYLE = """
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;fill:#5a6472}
.title{font-size:17px;font-weight:600;fill:#1c2128}.lead{font-size:13px}.value{fill:#1c2128;font-size:11px}
.y{text-anchor:end}.x,.stage,.value{text-anchor:middle}.grid{stroke:#e3e6e9}.axis{stroke:#5a6472}
.loss{fill:#8a939e}.loss.out{fill:#c65500}.cut{stroke:#fff;stroke-width:4}.bracket{stroke:#b4bcc6}
"""
# More bars than these leave no room for a figure over each.
_MOST_FIGURES = 24


@dataclass(frozen=True)
class _Bar:
    name: str
    lost: float
    out: bool

    @property
    def words(self) -> str:
        change = (
            f"loses {points(self.lost).lstrip('+')}" if self.lost >= 0 else f"gains {points(-self.lost).lstrip('+')}"
        )
        return f"without {self.name} the base {change}" + ("; the winner leaves it out" if self.out else "")


def _bars(results: Results) -> list[_Bar]:
    best = find(results, results.best)
    out = set(best.drops) if best is not None else set()
    order = {block.name: number for number, block in enumerate(results.blocks)}
    lost = {name: value for name, given in results.sensitivity.items() if (value := finite(given)) is not None}
    return [_Bar(name, lost[name], name in out) for name in sorted(lost, key=lambda name: order.get(name, len(order)))]


def _label(value: float) -> str:
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 0.05 else "0"


def _top(bars: list[_Bar]) -> float:
    """Where the axis ends: a block that nothing works without must not flatten all the others."""
    lost = sorted(max(0.0, bar.lost) for bar in bars)
    enough = max(1.0, 2 * lost[3 * (len(lost) - 1) // 4])
    return enough if lost[-1] > 2 * enough else lost[-1]


def _picture(bars: list[_Bar]) -> str:
    """The bars with both axes, in percent of the plot."""
    low, high = min(0.0, *(bar.lost for bar in bars)), _top(bars)
    air = 0.08 * (high - low) or 1.0
    up = Axis(low - (air if low < 0 else 0), high + air)
    zero, slot = up.down(0.0), 100 / len(bars)
    parts = [rows(up)]
    every = -(-len(bars) // 16)
    for number, bar in enumerate(bars):
        middle, end = round((number + 0.5) * slot, 3), up.down(bar.lost)
        height = max(abs(end - zero), 0.4)
        parts.append(
            f'<rect class="loss{" out" if bar.out else ""}" x="{round(middle - 0.36 * slot, 3)}%" '
            f'y="{round(min(end, zero), 3)}%" width="{round(0.72 * slot, 3)}%" height="{round(height, 3)}%">'
            f"<title>{esc(bar.words)}</title></rect>"
        )
        cut = bar.lost > up.high
        if cut:
            left, right = round(middle - 0.4 * slot, 3), round(middle + 0.4 * slot, 3)
            parts.append(f'<line class="cut" x1="{left}%" x2="{right}%" y1="10%" y2="6%"/>')
        if cut or len(bars) <= _MOST_FIGURES:
            place = f'x="{middle}%" y="{end}%" dy="{"1.1em" if bar.lost < 0 else "-0.4em"}"'
            parts.append(f'<text class="value{" far" if cut else ""}" {place}>{_label(bar.lost)}</text>')
        if number % every == 0:
            short = bar.name.rpartition(".")[2]
            parts.append(f'<text class="tick x" x="{middle}%" y="100%" dy="1.5em">{esc(short)}</text>')
    parts.append(f'<line class="axis" x1="0%" x2="100%" y1="{zero}%" y2="{zero}%"/>')
    return "".join(parts) + _stages(bars)


def _stages(bars: list[_Bar]) -> str:
    """Names of the stages under the numbers of their blocks, where they fit."""
    slot, first, parts = 100 / len(bars), 0, []
    for stage, members in groupby(bars, key=lambda bar: stage_of(bar.name)):
        number = len(list(members))
        left, right = round((first + 0.1) * slot, 3), round((first + number - 0.1) * slot, 3)
        parts.append(
            f'<svg y="100%" overflow="visible"><line class="bracket" x1="{left}%" x2="{right}%" y1="26" y2="26"/></svg>'
        )
        if right - left > 7:
            middle = round((left + right) / 2, 3)
            parts.append(f'<text class="stage" x="{middle}%" y="100%" dy="3.4em">{esc(stage)}</text>')
        first += number
    return "".join(parts)


def _summary(bars: list[_Bar]) -> str:
    least, most = min(bars, key=lambda bar: bar.lost), max(bars, key=lambda bar: bar.lost)
    cut = " A bar that is cut reaches further." if most.lost > _top(bars) else ""
    return f"The base misses {least.name} least ({_label(least.lost)}) and {most.name} most ({_label(most.lost)}).{cut}"


def least_missed(results: Results) -> tuple[str, float] | None:
    """The block whose absence costs the least, and the points that it costs; None where nothing was measured."""
    least = min(_bars(results), key=lambda bar: bar.lost, default=None)
    return None if least is None else (least.name, least.lost)


def render_sensitivity(results: Results) -> str:
    """The section's picture; empty where nothing was measured."""
    bars = _bars(results)
    if not bars:
        return ""
    legend = ""
    if any(bar.out for bar in bars):
        legend = (
            '<ul class="legend"><li><span class="key box"></span>kept by the winner</li>'
            '<li><span class="key box out"></span>left out by the winner</li></ul>'
        )
    many = " many" if len(bars) > 10 else ""
    return (
        f'<figure>{legend}<p class="axis-title">points of validation accuracy lost without the block</p>'
        f'<div class="plot low"><svg class="chart losses{many}" role="img" aria-label="{esc(_summary(bars))}">'
        f"{_picture(bars)}</svg></div><figcaption>{esc(_summary(bars))} The trained base was scored with one block "
        "left out at a time, without training again. Where little is lost, dropping is cheap: there the search "
        "begins.</figcaption></figure>"
    )


def render_sensitivity_svg(results: Results) -> str:
    """The same picture as an SVG file that can be read alone, on a light background.

    Args:
        results: of the search; where nothing was measured the picture says so.
    """
    bars = _bars(results)
    title = f"What {results.base} loses without each block"
    measured = f"{plural(len(bars), 'block')}, one left out at a time, no training; points of validation accuracy"
    body = (
        f'<svg x="58" y="86" width="682" height="226" overflow="visible">{_picture(bars)}</svg>'
        if bars
        else '<text x="24" y="110">Nothing was measured.</text>'
    )
    key = ""
    if any(bar.out for bar in bars):
        key = (
            '<rect class="loss out" x="590" y="22" width="12" height="12"/>'
            '<text x="608" y="32">left out by the winner</text>'
        )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="372" viewBox="0 0 760 372" role="img">'
        f"<title>{esc(title)}</title><desc>{esc(_summary(bars) if bars else 'Nothing was measured.')}</desc>"
        f'<style>{_FILE_STYLE}</style><rect width="760" height="372" fill="#ffffff"/>'
        f'<text class="title" x="24" y="34">{esc(title)}</text><text class="lead" x="24" y="56">{esc(measured)}</text>'
        f"{key}{body}</svg>\n"
    )
