"""What a training tells as it goes: a table of epochs, TensorBoard events, a run of Weights & Biases."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cp_vision.shared.files import write_text

from .events import EventFile

__all__ = ["Logs", "Row", "best_row", "best_rows"]

Row = dict[str, float | int | None]
"""One epoch: ``epoch`` (from 1), ``train_loss``, ``loss``, ``top1``, ``top5``, ``lr``, ``skipped``; where weights are
averaged, ``loss`` to ``top5`` are theirs, and ``plain_loss``, ``plain_top1``, ``plain_top5`` those of the others."""

SCORES = ("loss", "top1", "top5")


def best_rows(rows: Sequence[Row], metric: str) -> list[Row]:
    """The epochs that were scored, the best first, of equals the earlier; what is not finite only where all is not.

    Args:
        rows: the epochs.
        metric: ``loss``, whose least is best, or another score.
    """
    sign = 1 if metric == "loss" else -1
    scored = [(row, float(score)) for row in rows if (score := row[metric]) is not None]
    finite = [(row, score) for row, score in scored if math.isfinite(score)]
    return [row for row, _ in sorted(finite, key=lambda one: sign * one[1])] or [row for row, _ in scored]


def best_row(rows: Sequence[Row], metric: str) -> Row | None:
    """The first of :func:`best_rows`."""
    return next(iter(best_rows(rows, metric)), None)


class Logs:
    """Writes ``log.csv``, TensorBoard events, and the same values into a run of wandb.

    The table is written whole every time, from rows that are part of a training's state; so a training that goes
    on after a kill has the table of one that was never killed. Without tensorboard there are no events.

    Args:
        folder: where to write.
        step: updates done so far; events of later ones, from before a kill, are taken back.
        averaged: whether there are scores of averaged weights and of plain ones.
        run: of wandb, or None.
    """

    def __init__(self, folder: Path, step: int, averaged: bool, run: Any = None) -> None:
        self.folder, self.run = folder, run
        self.scores = (*SCORES, *(f"plain_{name}" for name in SCORES if averaged))
        has_tensorboard = importlib.util.find_spec("tensorboard") is not None
        self.events = EventFile(folder / "tensorboard", step + 1) if has_tensorboard else None

    def update(self, step: int, **values: float) -> None:
        """Note an update: the table doesn't keep those."""
        self._note(step, {f"train/{name}": value for name, value in values.items()})

    def epoch(self, rows: Sequence[Row], step: int) -> None:
        """Write all epochs so far."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ("epoch", "train_loss", *self.scores, "lr", "skipped"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.folder / "log.csv", text.getvalue())
        row = rows[-1]
        scores = {f"validation/{name}": value for name in self.scores if (value := row.get(name)) is not None}
        self._note(step, {"epoch": row["epoch"], "train/epoch_loss": row["train_loss"], **scores})

    def _note(self, step: int, values: dict[str, Any]) -> None:
        if self.events is not None:
            self.events.add(values, step)
        if self.run is not None:
            self.run.log(values, step=step)

    def close(self) -> None:
        """End the events' file."""
        if self.events is not None:
            self.events.close()
