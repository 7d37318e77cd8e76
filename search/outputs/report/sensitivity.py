"""What the trained base loses without each block, as bars in the order of the blocks."""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple

from ...types import Results
from .axis import Axis
from .figures import find
from .strips import stage_of
from .words import points, short_points

# More bars than these leave no room for a figure over each.
_MOST_FIGURES = 24
# And no more numbers of blocks than these stand under them.
_MOST_NUMBERS = 16


class Loss(NamedTuple):
    """What the base loses without a block, in points, and whether the winner leaves it out."""

    name: str
    lost: float
    out: bool


def losses(results: Results) -> list[Loss]:
    """What was measured, in the order of the blocks."""
    best = find(results, results.best)
    out = best.drops if best is not None else ()
    order = {block.name: number for number, block in enumerate(results.blocks)}
    ranked = sorted(results.sensitivity.items(), key=lambda item: order.get(item[0], len(order)))
    return [Loss(name, lost, name in out) for name, lost in ranked]


def losses_chart(results: Results) -> dict[str, Any] | None:
    """The bars, in percent of the plot; None where nothing was measured."""
    found = losses(results)
    if not found:
        return None
    least, most = min(found, key=lambda loss: loss.lost), max(found, key=lambda loss: loss.lost)
    # A block that nothing works without must not flatten all the others.
    heights = sorted(max(0.0, loss.lost) for loss in found)
    enough = max(1.0, 2 * heights[3 * (len(heights) - 1) // 4])
    low, high = min(0.0, least.lost), enough if heights[-1] > 2 * enough else heights[-1]
    air = 0.08 * (high - low) or 1.0
    up = Axis(low - (air if low < 0 else 0), high + air)
    zero, slot, every = up.down(0.0), 100 / len(found), -(-len(found) // _MOST_NUMBERS)
    bars = []
    for i, loss in enumerate(found):
        middle, end, cut = round((i + 0.5) * slot, 3), up.down(loss.lost), loss.lost > up.high
        change = f"{'loses' if loss.lost >= 0 else 'gains'} {points(abs(loss.lost)).lstrip('+')}"
        bars.append(
            dict(
                loss._asdict(),
                words=f"without {loss.name} the base {change}" + ("; the winner leaves it out" if loss.out else ""),
                **{"middle": middle, "end": end, "x": round(middle - 0.36 * slot, 3), "y": round(min(end, zero), 3)},
                **{"width": round(0.72 * slot, 3), "height": round(max(abs(end - zero), 0.4), 3)},
                cut=(round(middle - 0.4 * slot, 3), round(middle + 0.4 * slot, 3)) if cut else None,
                figure=short_points(loss.lost) if cut or len(found) <= _MOST_FIGURES else "",
                number=loss.name.rpartition(".")[2] if i % every == 0 else "",
            )
        )
    stages, first = [], 0
    for stage, members in groupby(found, key=lambda loss: stage_of(loss.name)):
        number = len(list(members))
        left, right = round((first + 0.1) * slot, 3), round((first + number - 0.1) * slot, 3)
        # The name stands under its blocks where it fits.
        stages.append((left, right, round((left + right) / 2, 3), stage if right - left > 7 else ""))
        first += number
    summary = (
        f"The base misses {least.name} least ({short_points(least.lost)}) and {most.name} most "
        f"({short_points(most.lost)})." + (" A bar that is cut reaches further." if most.lost > high else "")
    )
    return {
        "rows": up.rows(),
        "zero": zero,
        "bars": bars,
        "stages": stages,
        "summary": summary,
        "out": any(x.out for x in found),
    }
