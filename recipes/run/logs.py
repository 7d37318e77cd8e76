"""What a training tells as it goes: a table of epochs, and TensorBoard events."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cp_vision.shared.files import write_text

__all__ = ["Logs", "Row", "best_row"]

Row = dict[str, float | int | None]
"""One epoch: ``epoch`` (from 1), ``train_loss``, ``loss``, ``top1``, ``top5``, ``lr``, ``skipped``; where weights are
averaged, ``loss`` to ``top5`` are theirs, and ``plain_loss``, ``plain_top1``, ``plain_top5`` those of the others."""

SCORES = ("loss", "top1", "top5")


def best_row(rows: Sequence[Row], metric: str) -> Row | None:
    """The best of the epochs that were scored, of several the first; what is not finite is best where all is not.

    Args:
        rows: the epochs.
        metric: ``loss``, whose least is best, or another score.
    """
    sign = -1 if metric == "loss" else 1
    scored = [(row, float(score)) for row in rows if (score := row[metric]) is not None]
    scored = [(row, score) for row, score in scored if math.isfinite(score)] or scored
    return max(scored, key=lambda one: sign * one[1])[0] if scored else None


class Logs:
    """Writes ``log.csv`` and TensorBoard events.

    The table is written whole every time, from rows that are part of a training's state; so a training that goes
    on after a kill has the table of one that was never killed. Without tensorboard there are no events.

    Args:
        folder: where to write.
        step: updates done so far; events of later ones, from before a kill, are taken back.
        averaged: whether there are scores of averaged weights and of plain ones.
    """

    def __init__(self, folder: Path, step: int, averaged: bool) -> None:
        self.folder = folder
        self.scores = (*SCORES, *(f"plain_{name}" for name in SCORES if averaged))
        self.events: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def update(self, step: int, **values: float) -> None:
        """Note an update: TensorBoard alone keeps those."""
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(f"train/{name}", value, step)

    def epoch(self, rows: Sequence[Row], step: int) -> None:
        """Write all epochs so far."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ("epoch", "train_loss", *self.scores, "lr", "skipped"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.folder / "log.csv", text.getvalue())
        if self.events is not None:
            for name in self.scores:
                value = rows[-1].get(name)
                if value is not None:
                    self.events.add_scalar(f"validation/{name}", value, step)
            self.events.flush()

    def close(self) -> None:
        """End the events' file."""
        if self.events is not None:
            self.events.close()
