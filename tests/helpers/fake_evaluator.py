"""A scorer that trains nothing: a fixed function of the architecture, for the parts of a search around training."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from cp_vision import Architecture
from cp_vision.search.evaluators.base import OnEpoch, Score


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
