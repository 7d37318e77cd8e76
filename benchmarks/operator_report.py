"""The tables, the goals and the plot of ``operator.py``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

from benchmarks.measure import Spread
from cp_vision.pooling.context_pool import uses_linear

matplotlib.use("svg")
import matplotlib.pyplot as plt

__all__ = ["Figure", "draw", "tables"]

# The most that a pool may take of its block's time, channels last and planar, forward and forward + backward alike.
GOALS = {
    "56x56x256": (0.6, 1.0),
    "28x28x512": (0.4, 0.6),
    "14x14x1024": (0.2, 0.3),
    "7x7x2048": (0.08, 0.1),
    "14x14x384": (0.06, None),
}
MOST_MAPS = 3.0
# How far a model's time may exceed its base's, as a multiple of how far its MACs do.
MOST_EXCESS = 1.5
PHASES = ("forward", "forward + backward")

POOLS = """## A pool beside the block at its place

Forward: in evaluation, without gradients. Forward + backward: in training, gradients of input and parameters. The block
is the second of its stage in timm's ResNet-50, in the same layout; at 14x14x384 that of ViT-S/16. The pool is a whole
`ContextPool2d` with default options. Memory is the peak of forward + backward beyond input and output, in maps (a map:
what the input takes); gradients of input and parameters are part of it. No kernel: in a process of its own, beside the
block there. 200x336x256 is a single image.
"""
PROFILE = """## Where a pool's time goes

Forward + backward of the default pool, channels last; the operators that take most of it, by `torch.profiler`. Where
the linear backend runs, `GeneratedBackwardFor_cp_vision_linear_pool_default` is its kernel forward,
`cp_vision::linear_pool_gradients` backward; `mm`, `addmm` and convolutions are the mapping's.
"""
CROSSING = """## Where the linear backend overtakes the exact one

Square maps, channels last; times in ms.
"""
MODELS = """## Whole models with their default pools

At 224 px, planar. The goal: the time's excess over the base's is at most 1.5 times the MACs'. A training step is
forward, backward and an optimiser's step.
"""


class Figure(NamedTuple):
    """One measured quantity, a row of ``operator.csv``: ms, a ratio, maps or MMACs."""

    section: str
    place: str
    layout: str
    method: str
    quantity: str
    value: Spread


Found = dict[tuple[str, ...], Spread]


def tables(figures: Sequence[Figure], batch: int) -> Iterator[str]:
    """The lines of the report, a part for each section that was measured; batch is the images of a model's call."""
    # The block is timed again with every rival; what stands in the tables is from its turns with the default pool.
    found: Found = {figure[:5]: figure.value for figure in reversed(figures)}
    places: dict[str, dict[tuple[str, str, str], None]] = {}
    for figure in figures:
        places.setdefault(figure.section, {})[figure[:3]] = None
    if "pools" in places:
        yield POOLS
        yield from _table("| | | measured | goal | |", _goals(found))
        names = dict.fromkeys(figure.method for figure in figures if figure.section == "pools")
        # All pools beside each other, then the rivals.
        names = sorted(names, key=lambda name: not name.startswith(("block", "auto", "exact", "linear")))
        head = "| | forward, ms | of block | forward + backward, ms | of block | memory, maps | MMACs | of block |"
        for at in places["pools"]:
            yield f"### {at[1]}, {at[2]}\n"
            yield from _table(head, (_method(found, at, name) for name in names if (*at, name, "maps") in found))
    if "profile" in places:
        yield PROFILE
        yield from _table("| map | operators, share of the time |", (_profile(figures, at) for at in places["profile"]))
    if "crossing" in places:
        yield CROSSING
        heads = (f"exact, {phase} | linear, {phase} | linear / exact" for phase in PHASES)
        yield from _table(f"| map | {' | '.join(heads)} | auto |", (_crossing(found, at) for at in places["crossing"]))
    if "models" in places:
        yield MODELS
        head = "| model | | base, images/s | with pools, images/s | MACs, ratio | time, ratio | goal | |"
        yield from _table(head, (row for at in places["models"] for row in _model(found, at, batch)))


def _goals(found: Found) -> Iterator[Sequence[str]]:
    for place, mosts in GOALS.items():
        for layout, most in zip(("channels last", "planar"), mosts, strict=True):
            limits = {f"{phase}, ratio": (f"{phase}, share of the block's time", most) for phase in PHASES}
            for quantity, (name, limit) in {**limits, "maps": ("memory, maps", MOST_MAPS)}.items():
                value = found.get(("pools", place, layout, "auto", quantity))
                if value is not None:
                    verdict = "reached" if value.median <= limit else f"{value.median / limit:.2f} x the goal"
                    yield f"{place}, {layout}", name, _show(value), f"{limit:g}", verdict


def _method(found: Found, at: tuple[str, str, str], name: str) -> Sequence[str]:
    quantities = [f"{phase}, {unit}" for phase in PHASES for unit in ("ms", "ratio")]
    cells = [_show(found.get((*at, name, quantity))) for quantity in (*quantities, "maps")]
    macs, share = found.get((*at, name, "MMACs")), found[*at, "block", "MMACs"].median
    counted = ("-", "-") if macs is None else (f"{macs.median:.3g}", f"{macs.median / share:.3g}")
    shown = f"auto: {_auto(at[1])}" if name == "auto" else name
    return shown, *cells, *counted


def _profile(figures: Sequence[Figure], at: tuple[str, str, str]) -> Sequence[str]:
    shares = [f"`{figure.method}` {figure.value.median:.0%}" for figure in figures if figure[:3] == at]
    return at[1], ", ".join(shares)


def _crossing(found: Found, at: tuple[str, str, str]) -> Sequence[str]:
    columns = (("exact", "ms"), ("linear", "ms"), ("linear", "ratio"))
    cells = [_show(found[*at, method, f"{phase}, {unit}"]) for phase in PHASES for method, unit in columns]
    return at[1], *cells, _auto(at[1])


def _model(found: Found, at: tuple[str, str, str], batch: int) -> Iterator[Sequence[str]]:
    base, pooled = at[1], f"cp_{at[1]}"
    macs = found[*at, pooled, "MMACs"].median / found[*at, base, "MMACs"].median
    for phase in ("evaluation", "training step"):
        rates = []
        for name in (base, pooled):
            median, low, high, count = found[*at, name, f"{phase}, ms"]
            rates.append(_show(Spread(1e3 * batch / median, 1e3 * batch / high, 1e3 * batch / low, count)))
        ratio = found[*at, pooled, f"{phase}, ratio"]
        excess, most = ratio.median - 1, MOST_EXCESS * (macs - 1)
        verdict = "reached" if excess <= most else f"{excess / most:.1f} x the excess"
        yield pooled, phase, *rates, f"{macs:.3f}", _show(ratio, 4), f"{1 + most:.3f}", verdict


def _auto(place: str) -> str:
    height, width, _ = map(int, place.split("x"))
    return "linear" if uses_linear((height, width)) else "exact"


def _show(value: Spread | None, digits: int = 3) -> str:
    """Median and quartiles."""
    if value is None:
        return "-"
    median, low, high = (f"{number:.0f}" if abs(number) >= 100 else f"{number:.{digits}g}" for number in value[:3])
    return f"{median} [{low}, {high}]"


def _table(head: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield head
    yield "|---" * (head.count("|") - 1) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Every method's share of the block's time at every place: filled is channels last, open is planar."""
    shares = [figure for figure in figures if figure.section == "pools" and figure.quantity.endswith("ratio")]
    methods = list(dict.fromkeys(figure.method for figure in shares))
    places = list(dict.fromkeys(figure.place for figure in shares))
    panes, axes = plt.subplots(1, 2, figsize=(12, 0.4 * len(methods) + 2), sharey=True, layout="constrained")
    for axis, phase in zip(axes, PHASES, strict=True):
        for figure in (figure for figure in shares if figure.quantity == f"{phase}, ratio"):
            colour, filled = f"C{places.index(figure.place)}", figure.layout == "channels last"
            label = figure.place if figure.method == "auto" and filled else None
            dot = (figure.value.median, methods.index(figure.method))
            axis.plot(*dot, "o", color=colour, markerfacecolor=colour if filled else "none", label=label)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", xlabel="time, share of the block's", title=phase)
        axis.grid(linewidth=0.3)
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].invert_yaxis()
    axes[1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    panes.savefig(path)
    plt.close(panes)
