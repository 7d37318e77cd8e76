"""What a trained base loses without each block, with no training: where dropping is cheap."""

from __future__ import annotations

import copy
from typing import Any

import torch

from cp_vision import Architecture, drop_blocks
from cp_vision.shared.errors import UserError

from ...recipes.data.seeding import seed_all
from ...recipes.models import load_model
from ..context import SearchContext
from ..study.trials import TrialStore
from .base import OnEpoch, Score
from .checkpoints import weights_folder
from .guessing import refuse_guessing
from .train import TrainEvaluator

__all__ = ["UntrainedEvaluator", "block_sensitivity", "measure_sensitivity", "untrained"]

# More images than these make no difference that matters here.
_MOST_IMAGES = 2000


def block_sensitivity(model: torch.nn.Module, names: list[str], trainer: TrainEvaluator) -> dict[str, float]:
    """Accuracy in points that a model loses when each block alone is left out.

    Args:
        model: the trained base.
        names: blocks that may be left out.
        trainer: scores on its held-out part, of which at most 2,000 images, spread evenly, are used.
    """
    images = trainer.held_out
    if len(images) > _MOST_IMAGES:
        images = images.part([i * len(images) // _MOST_IMAGES for i in range(_MOST_IMAGES)])
    whole = trainer.score(model, images)
    lost = {}
    for name in names:
        without = drop_blocks(copy.deepcopy(model), [name])
        lost[name] = round(whole - trainer.score(without, images), 4)
    return lost


def untrained(trainer: TrainEvaluator, architecture: Architecture) -> torch.nn.Module:
    """The model with the weights that the recipe names; what they lack is drawn by the recipe's seed."""
    seed_all(trainer.recipe.seed)
    return trainer.build(architecture)


def measure_sensitivity(context: SearchContext, record: TrialStore) -> None:
    """Measure what the base loses without each block, once: what is proposed first depends on it.

    Args:
        context: the search.
        record: gets the points by block, if the base was scored and its weights are there.
    """
    record.sync()
    if not record.base_is_finished or record.get("sensitivity") is not None:
        return
    trainer, choice = TrainEvaluator.of(context), record.choice_of(0)
    architecture = context.space.architecture(choice)
    if context.config.evaluator == "sensitivity":
        model = untrained(trainer, architecture)
    else:
        try:
            model = load_model(weights_folder(trainer.output, architecture, context.space.img_size(choice)))
        except UserError:
            # They are wanted for the sake of the start alone, which goes without.
            return
    names = [block.name for block in context.space.blocks if block.droppable]
    record.set("sensitivity", block_sensitivity(model, names, trainer))


class UntrainedEvaluator:
    """Scores an architecture with the weights that the recipe names, as they are.

    Args:
        trainer: builds and scores it.
    """

    def __init__(self, trainer: TrainEvaluator) -> None:
        self.trainer = trainer

    def __call__(self, architecture: Architecture, img_size: int | None, on_epoch: OnEpoch) -> Score:
        """Score it; see :class:`Evaluator`."""
        model: Any = untrained(self.trainer, architecture)
        accuracy = self.trainer.score(model, self.trainer.held_out, img_size)
        refuse_guessing(accuracy, self.trainer.num_classes, len(self.trainer.held_out))
        return Score(accuracy, sum(parameter.numel() for parameter in model.parameters()))
