"""Evaluators that train nothing, for the parts of a search around training."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from optuna.exceptions import StorageInternalError

from cp_vision import Architecture, UserError
from cp_vision.search.evaluators.base import NotKeptError, OnEpoch, Score


def journal(output: Path) -> str:
    """The ``storage`` of a search for tests of something else: beside its folder, in a fifth of a database's time."""
    return f"journal:{output}.log"


def nothing(architecture: Architecture, call: int) -> None:
    """Do nothing before a score."""


class FakeEvaluator:
    """Scores by position: late blocks and pools help, with some noise that depends on the architecture alone."""

    def __init__(
        self,
        before: Callable[[Architecture, int], None] = nothing,
        epochs: int = 1,
        seconds: float = 0.0,
    ) -> None:
        self.before, self.epochs, self.seconds = before, epochs, seconds
        self.seen: list[Architecture] = []

    def __call__(self, architecture: Architecture, img_size: int | None, on_epoch: OnEpoch) -> Score:
        self.seen.append(architecture)
        self.before(architecture, len(self.seen))
        digest = hashlib.sha256(architecture.to_json().encode()).digest()
        accuracy = 80 + 1.5 * len(architecture.pools) - len(architecture.drops) + digest[0] / 256
        for epoch in range(1, self.epochs + 1):
            if self.seconds:
                # A fixed cost, as of a training.
                time.sleep(self.seconds / self.epochs)
            share = epoch / self.epochs
            on_epoch(epoch, self.epochs, 0.0, lambda share=share: accuracy * share)
        return Score(accuracy, params=1000 + digest[1])


class EndingEvaluator:
    """Ends each candidate in its own way.

    Args:
        ways: by the blocks that it drops; all others are scored.
        folder: where a candidate that runs for long leaves ``begun`` and ``done``.
    """

    def __init__(self, ways: Mapping[tuple[str, ...], str], folder: Path) -> None:
        self.ways, self.folder = dict(ways), folder

    def __call__(self, architecture: Architecture, img_size: int | None, on_epoch: OnEpoch) -> Score:
        way = self.ways.get(architecture.drops, "complete")
        if way == "error":
            raise RuntimeError("out of\nmemory")
        if way == "other error":
            raise MemoryError("no room")
        if way == "mistake":
            raise UserError("no such file 'x'")
        if way == "not kept":
            raise NotKeptError("can't write into 'x'")
        if way == "study away":
            raise StorageInternalError("disk I/O error")
        if way == "died":
            os._exit(1)
        if way == "long":
            (self.folder / "begun").touch()
            time.sleep(120)
            (self.folder / "done").touch()
        if way == "mistake beside a long one":
            while not (self.folder / "begun").exists():
                time.sleep(0.05)
            raise UserError("no such file 'x'")
        first = {"stopped": 10.0, "no number at first": math.nan}.get(way, 50.0)
        on_epoch(1, 9, 0.0, lambda: first)
        return Score(math.nan if way == "no number" else 80.0, params=1000)
