"""The evaluator with shared weights: trained once for all candidates, each of which is then scored in seconds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

from torch import Tensor

from cp_vision import Architecture
from cp_vision.fitting.recalibrate import tracked_norms
from cp_vision.shared.files import make_folder

from ....recipes.evaluation.evaluate import evaluate
from ....recipes.recipe.keys import Recipe
from ...study.workers import folder_lock
from ..base import OnEpoch, Score
from ..train import TrainEvaluator
from .batches import KeptBatches
from .model import Supernet
from .norms import recalibrated
from .task import Draw
from .training import train_shared

__all__ = ["SupernetEvaluator"]

CALIBRATION_IMAGES = 1024
"""Training images that batch norms see before a candidate is scored."""


class SupernetEvaluator:
    """Scores every candidate with weights that it shares with all others.

    The base with pools at all candidate sites is trained once (:class:`SandwichTask`). A candidate is a part of it:
    where it has batch norms they see some training images first, the same for all, and then it is scored as it is.
    The same candidate gets the same score, whatever was scored before it.

    Args:
        trainer: the data, how a model is scored, and where the search writes; shared weights lie in ``supernet/``.
        whole: pools at every candidate site, no drops.
        smallest: the smallest architecture.
        draw: gives architectures within the budgets at random.
        recipe: how the shared weights are trained.

    Source: Guo et al., *Single path one-shot neural architecture search with uniform sampling*, ECCV 2020,
    arXiv 1904.00420 (scores with shared weights and recalibrated norms); training: see :class:`SandwichTask`.
    """

    def __init__(
        self,
        trainer: TrainEvaluator,
        whole: Architecture,
        smallest: Architecture,
        draw: Draw,
        recipe: Recipe,
    ) -> None:
        self.trainer, self.whole, self.smallest, self.draw, self.recipe = trainer, whole, smallest, draw, recipe
        self.folder = trainer.output / "supernet"
        self._supernet: Supernet | None = None
        self._batches = KeptBatches()

    def prepare(self, on_progress: Callable[[float, int], None] = lambda done, epochs: None) -> Supernet:
        """Train the shared weights, go on where that was stopped, or read them where they are ready.

        Of several processes that share the folder one trains, and the others wait.

        Args:
            on_progress: told how many epochs are done, at the beginning and after every update, and of how many.

        Raises:
            UserError: the folder holds shared weights of another search.
            CommandError: the loss was not finite too often, or nothing can be written.
        """
        if self._supernet is None:
            make_folder(self.folder)
            with folder_lock(self.folder):
                self._supernet = train_shared(self, self.folder, on_progress)
        return self._supernet

    def __call__(self, architecture: Architecture, img_size: int | None, on_epoch: OnEpoch) -> Score:
        """Score a candidate; see :class:`Evaluator`. There are no epochs to tell of."""
        trainer = self.trainer

        def calibration() -> Iterator[tuple[Tensor, Tensor]]:
            loader = trainer.training_loader(model, img_size)
            return itertools.islice(loader.epoch(0), max(1, math.ceil(CALIBRATION_IMAGES / loader.share.size)))

        with self.prepare().acting_as(architecture) as model:
            batches = self._batches.get(("calibration", img_size), calibration) if tracked_norms(model) else ()
            with recalibrated(model, batches, trainer.processes, trainer.recipe):
                held_out = self._batches.get(
                    ("held out", img_size), lambda: trainer.scoring_loader(model, trainer.held_out, img_size)
                )
                accuracy = evaluate(model, held_out, trainer.processes, trainer.recipe)["top1"]
            return Score(accuracy, sum(parameter.numel() for parameter in model.parameters()))
