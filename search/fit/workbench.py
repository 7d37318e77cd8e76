"""A copy of the base on which changes are made, scored and undone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cp_vision import Snapshot
from cp_vision.anatomy.block import DroppedBlock
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.fitting.recalibrate import measuring, norm_statistics, recalibrate_norms, tracked_norms
from cp_vision.shared.errors import UserError
from cp_vision.surgery.replace_blocks import put_replacement

from .divergence import Divergence
from .images import FitImages, Images
from .places import Spot
from .replay import Replay

__all__ = ["RECALIBRATION", "Change", "Score", "Workbench", "put"]

# A place, and what stands there: None where it is left out.
Change = tuple[Spot, nn.Module | None]
# A user's own measure of how far a model is from what it should be; lower is better.
Score = Callable[[nn.Module], float]

# BatchNorms are recalibrated on so many images, in batches of so many.
RECALIBRATION, _BATCH = 64, 32


class Workbench:
    """A copy of the base, with the outputs of the base on held-out images.

    Args:
        base: left untouched.
        images: the images.
        score: of a model, in place of the divergence from the base; lower is better. Scores are what it has more than
            the base's.

    Attributes:
        model: the copy, in eval mode.
        blocks: paths of its blocks.
        has_norms: whether it has BatchNorms, which are recalibrated for every score.
    """

    def __init__(self, base: nn.Module, images: Images, score: Score | None = None) -> None:
        self.model = copy.deepcopy(base).eval()
        self.images, self._score = images, score
        self.blocks = [block.name for block in list_blocks(self.model)]
        self._norms = list(tracked_norms(self.model).values())
        self.has_norms = bool(self._norms)
        self._held_out = Replay(self.model, self.blocks, images.held_out)
        self.divergence = Divergence(self.model, self._held_out.outputs)
        self.base_score = 0.0 if score is None else checked_score(score, self.model)
        self._recalibration: Replay | None = None
        if self.has_norms:
            few = torch.cat(list(FitImages(images, RECALIBRATION)))
            self._few = [batch for batch in few.split(_BATCH) if len(batch) > 1]
            self._seen = norm_statistics(self.model, self._few)
            with measuring(self.model):
                self._recalibration = Replay(self.model, self.blocks, self._few)

    @property
    def measure(self) -> str:
        """What scores are."""
        return self.divergence.name if self._score is None else "score"

    @property
    def score_name(self) -> str:
        """Name of the user's score; empty where there is none."""
        return "" if self._score is None else getattr(self._score, "__qualname__", type(self._score).__qualname__)

    @contextmanager
    def changed(self, changes: Iterable[Change]) -> Iterator[nn.Module]:
        """The model with these changes within, and as it was after."""
        statistics = [(buffer, buffer.clone()) for norm in self._norms for buffer in norm.buffers()]
        with Snapshot(self.model):
            put(self.model, changes)
            try:
                yield self.model
            finally:
                for buffer, before in statistics:
                    buffer.copy_(before)

    @torch.no_grad()
    def score(self, changes: Sequence[Change], few: bool = False) -> float:
        """Score of the base with these changes, BatchNorms recalibrated first; lower is better.

        Args:
            changes: what is changed.
            few: whether the first batch of held-out images will do.
        """
        first = min((spot.first for spot, _ in changes), default=0)
        with self.changed(changes) as model:
            if self._recalibration is not None:
                with self._recalibration.played_before(first):
                    recalibrate_norms(model, self._recalibration, self._seen)
            if self._score is not None:
                return checked_score(self._score, model) - self.base_score
            outputs = []
            with self._held_out.played_before(first):
                for batch in self._held_out:
                    outputs.append(model(batch))
                    if few:
                        break
            return self.divergence.of(outputs)

    def recalibrate(self, model: nn.Module) -> None:
        """Recalibrate the BatchNorms of a changed copy of the model."""
        if self.has_norms:
            recalibrate_norms(model, self._few, self._seen)

    @torch.no_grad()
    def score_model(self, model: nn.Module) -> float:
        """Score of a model of its own, as it is."""
        if self._score is not None:
            return checked_score(self._score, model) - self.base_score
        return self.divergence.of([model(batch) for batch in self.images.held_out])


def put(model: nn.Module, changes: Iterable[Change]) -> None:
    """Make changes that are known to be right, in place."""
    for spot, stand_in in changes:
        if stand_in is not None:
            put_replacement(model, spot.place, stand_in)
            continue
        for path in spot.place.modules:
            model.set_submodule(path, DroppedBlock())


def checked_score(score: Score, model: nn.Module) -> float:
    """A user's score as a number; infinite where it is none (NaN).

    Raises:
        UserError: something else.
    """
    value: Any = score(model)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"score gave {value!r}; it must give a number, lower is better")
    return float(value) if value == value else float("inf")
