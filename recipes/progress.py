"""The bar that a training shows on the terminal: images a second, time left, the last scores."""

from __future__ import annotations

import functools
import sys
from types import TracebackType

from tqdm import tqdm

from .run.logs import Row
from .run.training_run import Training
from .training.trainer import Trainer

__all__ = ["Progress"]


class Progress:
    """A bar of all images of a training, on the primary process.

    Args:
        training: the training, where it goes on.
    """

    def __init__(self, training: Training) -> None:
        trainer, loader = training.trainer, training.loader
        self.size, self.epochs = training.recipe.update_size, trainer.epochs
        per_epoch = loader.updates * self.size
        # Shown from the first update on: a mistake that is seen before stands alone on its line.
        self.begin = functools.partial(
            tqdm,
            total=trainer.epochs * per_epoch,
            initial=trainer.epoch * per_epoch + trainer.update * self.size,
            unit="img",
            unit_scale=True,
            disable=not training.processes.primary,
        )
        self.bar: tqdm | None = None
        self.score = ""
        self.found = training.found if training.processes.primary else None

    def on_begin(self) -> None:
        """Tell what was found in the data set."""
        if self.found is not None:
            print(f"data: {self.found}", file=sys.stderr)

    def on_update(self, trainer: Trainer, loss: float) -> None:
        """Show an update."""
        if self.bar is None:
            self.bar = self.begin()
        epoch = min(trainer.epoch + 1, self.epochs)
        self.bar.set_postfix_str(f"epoch {epoch}/{self.epochs}, loss {loss:.4f}{self.score}", refresh=False)
        self.bar.update(self.size)

    def on_epoch(self, row: Row) -> None:
        """Keep an epoch's score in sight."""
        if row["top1"] is not None:
            self.score = f", top-1 {row['top1']:.2f} %"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
