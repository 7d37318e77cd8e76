"""What a training shows: a bar of images, time left and the last scores on a terminal, else a line an epoch."""

from __future__ import annotations

import functools
import sys
import time
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
        quiet: show nothing.
    """

    def __init__(self, training: Training, quiet: bool = False) -> None:
        trainer, loader = training.trainer, training.loader
        self.speaks = training.processes.primary and not quiet
        self.size, self.epochs = training.recipe.update_size, trainer.epochs
        per_epoch = loader.updates * self.size
        # Shown from the first update on: a mistake that is seen before stands alone on its line.
        self.begin = functools.partial(
            tqdm,
            total=trainer.epochs * per_epoch,
            initial=trainer.epoch * per_epoch + trainer.update * self.size,
            unit="img",
            unit_scale=True,
            disable=not self.speaks or not sys.stderr.isatty(),
        )
        self.bar: tqdm | None = None
        self.score, self.began = "", time.monotonic()
        self.before = [f"data: {training.found}", training.note] if self.speaks else []

    def on_begin(self) -> None:
        """Tell what was found in the data set, and in a file of weights."""
        for line in filter(None, self.before):
            print(line, file=sys.stderr)

    def on_update(self, trainer: Trainer, loss: float) -> None:
        """Show an update."""
        if self.bar is None:
            self.bar = self.begin()
        epoch = min(trainer.epoch + 1, self.epochs)
        self.bar.set_postfix_str(f"epoch {epoch}/{self.epochs}, loss {loss:.4f}{self.score}", refresh=False)
        self.bar.update(self.size)

    def on_epoch(self, row: Row) -> None:
        """Keep an epoch's score in sight; a log, which is no terminal, gets a line of each."""
        if row["top1"] is not None:
            self.score = f", top-1 {row['top1']:.2f} %"
        if self.speaks and not sys.stderr.isatty():
            seconds, self.began = time.monotonic() - self.began, time.monotonic()
            score = "" if row["top1"] is None else f", validation loss {row['loss']:.4f}{self.score}"
            print(
                f"epoch {row['epoch']}/{self.epochs}: training loss {row['train_loss']:.4f}{score}, "
                f"lr {row['lr']:.3g}, {seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
