"""Training of shared weights that goes on from where it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from timm.utils import random_seed

from cp_vision import Architecture
from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError
from cp_vision.shared.files import remove_unfinished

from ....recipes.data.training_loader import TrainingLoader
from ....recipes.models import build_model, data_config
from ....recipes.recipe.keys import Recipe
from ....recipes.run.checkpoints import load_state, save_state
from ....recipes.run.output_folder import FREE_KEYS
from ....recipes.training.trainer import Trainer, TrainingError
from ..train import TrainEvaluator
from .model import Supernet
from .task import Draw, SandwichTask

__all__ = ["SharedTraining", "train_shared"]


class SharedTraining(Protocol):
    """What is trained, with what and how."""

    trainer: TrainEvaluator
    whole: Architecture
    smallest: Architecture
    draw: Draw
    recipe: Recipe


def train_shared(shared: SharedTraining, folder: Path, on_progress: Callable[[float, int], None]) -> Supernet:
    """Train shared weights, go on where that was stopped, or read them where they are ready.

    The state is written after every epoch and every ``recovery_interval`` updates; killed anywhere, the same call
    goes on from there, and on a CPU ends with the same weights.

    Args:
        shared: what is trained.
        folder: where states are kept; must be there.
        on_progress: told how many epochs are done, at the beginning and after every update, and of how many.

    Raises:
        UserError: the folder holds shared weights of another search.
        CommandError: the loss was not finite too often, or nothing can be written.
    """
    trainer, recipe, whole = shared.trainer, shared.recipe, shared.whole
    remove_unfinished(folder)
    state, _ = load_state(folder)
    identity = _identity(shared)
    if state is not None and state.get("identity") != identity:
        raise UserError(
            f"{str(folder)!r} holds shared weights of another search; choose another --output, or delete that folder"
        )
    random_seed(recipe.seed)
    model: Any = trainer.build(whole) if state is None else build_model(whole.model_name, whole.create_args)
    if state is not None and state["finished"]:
        model.load_state_dict(state["averaged"] or state["model"])
        return Supernet(model.to(trainer.processes.device), whole)
    config = data_config(model, recipe)
    loader = TrainingLoader(trainer.train_set, recipe, config, trainer.num_classes, trainer.processes)
    training = Trainer(model, recipe, loader, trainer.processes)
    # Only now, since the trainer moves the model to its device.
    supernet = Supernet(training.model, whole)
    training.task = SandwichTask(training.task, supernet, shared.smallest, shared.draw, binary=recipe.bce_loss)
    if state is not None:
        training.load_state_dict(state)

    def save() -> None:
        if not training.is_sound():
            raise TrainingError(
                f"shared weights are not finite after epoch {training.epoch}; lower lr or set clip_grad"
            )
        more = {"identity": identity, "finished": training.epoch == training.epochs}
        save_state({**training.state_dict(), **more}, folder)

    def after_update(loss: float) -> None:
        on_progress(training.epoch + training.update / loader.updates, training.epochs)
        done = training.epoch * loader.updates + training.update
        if recipe.recovery_interval and done % recipe.recovery_interval == 0 and training.update < loader.updates:
            save()

    on_progress(training.epoch + training.update / loader.updates, training.epochs)
    try:
        while training.epoch < training.epochs:
            training.train_epoch(after_update)
            save()
    except TrainingError as error:
        raise CommandError(f"shared weights can't be trained: {error}") from error
    if training.averaged is not None:
        training.model.load_state_dict(training.averaged.state_dict())
    return supernet


def _identity(shared: SharedTraining) -> dict[str, Any]:
    """What makes this training another one than any other; the draws belong to the budgets of the search."""
    return {
        "whole": shared.whole.to_json(),
        "smallest": shared.smallest.to_json(),
        "recipe": shared.recipe.model_dump_json(exclude=FREE_KEYS),
        "images": len(shared.trainer.train_set),
        "classes": shared.trainer.num_classes,
    }
