"""The table, the targets and the plot of ``pool_cost.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

__all__ = ["write_report"]

Row = dict[str, Any]

# Largest ratio of "auto" to the network's block, forward and forward + backward alike.
TIME_TARGETS = {
    "resnet50 56x56": 1.0,
    "resnet50 28x28": 1.0,
    "resnet50 14x14": 0.4,
    "resnet50 7x7": 0.15,
    "vit_small 224": 0.12,
}
MACS_TARGETS = {"resnet50 56x56": 0.25, "resnet50 28x28": 0.15, "resnet50 14x14": 0.10, "resnet50 7x7": 0.05}
GROWTH_TARGET = 5.0
DETECTION_MIB = 1024.0

COLUMNS = {
    "forward ms": "forward_ms",
    "of block": "forward_ratio",
    "forward + backward ms": "step_ms",
    "of block ": "step_ratio",
    "forward MiB": "forward_mib",
    "forward + backward MiB": "step_mib",
    "MMACs": "mmacs",
    "of block  ": "macs_ratio",
}


def write_report(rows: list[Row], machine: str, output: Path) -> None:
    """Write ``operator.md`` and ``operator.svg``, and print the targets."""
    found = {(row["place"], row["method"]): row for row in rows}
    targets = list(_targets(found))
    lines = [
        "# What a context pool costs",
        "",
        f"{machine}. Made by `python benchmarks/pool_cost.py`.",
        "",
        "A whole gated `ContextPool2d` with its mapping network, its supports spread over their range by the features",
        "of a photograph, beside the network's block at that place. Times are medians in one process; MiB is the peak",
        "of the resident memory above input and output; MACs are of one image.",
        "",
        "![time of each method as a share of the block's](operator.svg)",
        "",
        "## Targets",
        "",
        "| | measured | at most | |",
        "|---|---|---|---|",
        *(f"| {name} | {value:.3g} | {most:g} | {_verdict(value, most)} |" for name, value, most in targets),
        "",
    ]
    for place in dict.fromkeys(row["place"] for row in rows):
        lines += [f"## {place}", "", f"| | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
        for row in rows:
            if row["place"] == place:
                lines.append(f"| {row['method']} | {' | '.join(_show(row[key]) for key in COLUMNS.values())} |")
        lines.append("")
    (output / "operator.md").write_text("\n".join(lines))
    _plot(rows, output / "operator.svg")
    for name, value, most in targets:
        print(f"{_verdict(value, most):12s} {name}: {value:.3g}, at most {most:g}")


def _targets(found: dict[tuple[str, str], Row]) -> Iterator[tuple[str, float, float]]:
    for key, what in (("forward_ratio", "forward"), ("step_ratio", "forward + backward")):
        for place, most in TIME_TARGETS.items():
            if (place, "auto") in found:
                yield f"{place}, {what}, share of the block", found[place, "auto"][key], most
    for place, most in MACS_TARGETS.items():
        if (place, "auto") in found:
            yield f"{place}, MACs, share of the block", found[place, "auto"]["macs_ratio"], most
    small, large = found.get(("resnet50 56x56", "linear")), found.get(("map 112x112", "linear"))
    if small and large:
        yield "linear, forward, 112x112 over 56x56", large["forward_ms"] / small["forward_ms"], GROWTH_TARGET
    detection = found.get(("detection 200x336", "linear"))
    if detection and detection["forward_mib"] is not None:
        yield "detection 200x336, linear, forward, MiB", detection["forward_mib"], DETECTION_MIB
        yield "detection 200x336, linear, forward + backward, MiB", detection["step_mib"], DETECTION_MIB


def _verdict(value: float, most: float) -> str:
    return "reached" if value <= most else "not reached"


def _show(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _plot(rows: list[Row], path: Path) -> None:
    places = list(dict.fromkeys(row["place"] for row in rows))
    methods = [name for name in dict.fromkeys(row["method"] for row in rows) if name != "block"]
    figure, axes = plt.subplots(1, 2, figsize=(13, 0.34 * len(methods) + 2), sharey=True, layout="constrained")
    colours = plt.get_cmap("tab10")
    for axis, key, title in zip(axes, ("forward_ratio", "step_ratio"), ("forward", "forward + backward"), strict=True):
        for index, place in enumerate(places):
            points = [
                (row[key], methods.index(row["method"]))
                for row in rows
                if row["place"] == place and row["method"] in methods
            ]
            axis.plot(*zip(*points, strict=True), "o", color=colours(index % 10), alpha=0.8, label=place)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", xlabel="time, share of the block's", title=title)
        axis.grid(axis="both", linewidth=0.3)
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].invert_yaxis()
    axes[1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path)
    plt.close(figure)
