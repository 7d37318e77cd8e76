"""What a training tells as it goes: a table of epochs, TensorBoard events and a picture of the curves."""

from __future__ import annotations

import csv
import importlib.util
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cp_vision.shared.files import write_text

from .curves import draw_curves

__all__ = ["Logs", "Row"]

Row = dict[str, float | int | None]
"""One epoch: ``epoch`` (from 1), ``train_loss``, ``loss``, ``top1``, ``top5``, ``lr``, ``skipped``."""

# Drawing takes a good part of a second, which short epochs would feel.
SECONDS_BETWEEN_PICTURES = 10.0

COLUMNS = ("epoch", "train_loss", "loss", "top1", "top5", "lr", "skipped")


class Logs:
    """Writes ``log.csv``, ``curves.svg`` and TensorBoard events.

    The table is written whole every time, from rows that are part of a training's state; so a training that goes
    on after a kill has the table of one that was never killed. Without matplotlib there is no picture, without
    tensorboard there are no events.

    Args:
        folder: where to write.
        title: what stands above the picture.
        step: updates done so far; events of later ones, from before a kill, are taken back.
    """

    def __init__(self, folder: Path, title: str, step: int) -> None:
        self.folder, self.title, self.drawn = folder, title, -SECONDS_BETWEEN_PICTURES
        self.events: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def update(self, step: int, **values: float) -> None:
        """Note an update: TensorBoard alone keeps those."""
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(f"train/{name}", value, step)

    def epoch(self, rows: Sequence[Row], step: int, last: bool) -> None:
        """Write all epochs so far; the picture now and then, and after the last one."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.folder / "log.csv", text.getvalue())
        if last or time.monotonic() - self.drawn > SECONDS_BETWEEN_PICTURES:
            draw_curves(rows, self.folder / "curves.svg", self.title)
            self.drawn = time.monotonic()
        if self.events is not None:
            for name in ("loss", "top1", "top5"):
                value = rows[-1][name]
                if value is not None:
                    self.events.add_scalar(f"validation/{name}", value, step)
            self.events.flush()

    def close(self) -> None:
        """End the events' file."""
        if self.events is not None:
            self.events.close()
