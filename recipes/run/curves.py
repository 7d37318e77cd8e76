"""A picture of a training: losses and accuracies by epoch."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_curves"]


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw the curves of a training; without matplotlib, nothing.

    Args:
        rows: one per epoch; epochs that weren't scored have None there.
        path: file to write.
        title: what stands above.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    losses, accuracies = figure.subplots(1, 2)
    marks: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.4}
    for axis, name, label, color in (
        (losses, "train_loss", "training (smoothed or mixed targets)", "#8a8f98"),
        (losses, "loss", "validation", "#1f5fa8"),
        (accuracies, "top5", "top-5", "#8a8f98"),
        (accuracies, "top1", "top-1", "#1f5fa8"),
    ):
        points = [(row["epoch"], row[name]) for row in rows if row[name] is not None]
        axis.plot([x for x, _ in points], [y for _, y in points], color=color, label=label, **marks)
    losses.set_ylabel("loss")
    accuracies.set_ylabel("validation accuracy, %")
    for axis in (losses, accuracies):
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title, fontsize=10)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        figure.savefig(unfinished, format="svg")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
