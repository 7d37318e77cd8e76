"""The evaluator that trains each candidate by the recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from optuna.exceptions import OptunaError
from safetensors import SafetensorError
from timm.utils import random_seed

from cp_vision import Architecture
from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line, system_reason

from ...recipes.data.evaluation_loader import ScoringLoader
from ...recipes.data.training_loader import TrainingLoader, worker_count
from ...recipes.evaluation.evaluate import evaluate
from ...recipes.models import build_model, data_config, save_model
from ...recipes.processes import Processes, single_process
from ...recipes.recipe.keys import Recipe
from ...recipes.run.kept_state import KeptState
from ...recipes.run.output_folder import FREE_KEYS
from ...recipes.training.first_step import rehearse
from ...recipes.training.trainer import Trainer, TrainingError, train_on
from ..context import SearchContext
from ..study.progress import training_folder
from .base import NotKeptError, OnEpoch, OutOfTimeError, Score
from .checkpoints import are_kept, weights_folder

__all__ = ["TrainEvaluator"]


class TrainEvaluator:
    """Trains a candidate on the training part and scores it on the held-out part.

    Every candidate starts from the same seed, so the same candidate gets the same score (on a CPU). Where the
    recipe names weights (``pretrained``, ``initial_checkpoint``), it starts from those of the base, as far as the
    names match. What is trained with a further seed has a folder of its own for its weights.

    The state of a training is kept in the output folder while it goes on. Where its process is killed, the same call
    goes on from there, in any process that sees the folder, and ends with the same weights (on a CPU).

    Args:
        recipe: how to train; its seed is the seed.
        train_set: images to train on.
        held_out: images to score on.
        num_classes: number of classes.
        output: output folder of the search.
        processes: this process, and where it trains.
        most_seconds: the longest that a candidate may take; None for no limit.
    """

    def __init__(
        self,
        recipe: Recipe,
        train_set: Any,
        held_out: Any,
        num_classes: int,
        output: Path,
        processes: Processes,
        most_seconds: float | None = None,
    ) -> None:
        self.recipe, self.num_classes, self.output, self.processes = recipe, num_classes, output, processes
        self.train_set, self.held_out, self.most_seconds = train_set, held_out, most_seconds

    @classmethod
    def of(cls, context: SearchContext, output: Path | None = None) -> TrainEvaluator:
        """The evaluator of a search.

        Args:
            context: the search.
            output: folder to keep weights in, in place of the search's.
        """
        return cls(
            context.recipe,
            context.train_set,
            context.held_out,
            context.num_classes,
            (output or context.output).absolute(),
            single_process(),
            context.config.trial_seconds,
        )

    def __call__(
        self, architecture: Architecture, img_size: int | None, on_epoch: OnEpoch, seed: int | None = None
    ) -> Score:
        """Train, or go on where a process was killed, score, and keep the weights; see :class:`Evaluator`.

        Args:
            architecture: the architecture.
            img_size: side of the images in pixels; None is the recipe's.
            on_epoch: what it raises ends the training.
            seed: of the training; None is the recipe's.
        """
        recipe = self.sized(img_size, seed)
        random_seed(recipe.seed)
        if self.recipe.torchcompile is not None:
            # Else torch compiles so many architectures in a process, eight by default, and no more.
            torch.compiler.reset()
        model = self.build(architecture)
        trainer = Trainer(model, recipe, self.training_loader(model, img_size, seed), self.processes)
        folder = training_folder(self.output, architecture, img_size, self._further(seed))
        state = KeptState(trainer, folder, self._identity(architecture, trainer))
        try:
            trained = self._train(state, lambda model: self.score(model, self.held_out, img_size), on_epoch)
            self._save(trained, recipe, self.folder(architecture, img_size, seed))
            params = sum(parameter.numel() for parameter in trained.parameters())
            score = Score(self.score(trained, self.held_out, img_size), params)
        except (NotKeptError, OptunaError, UserError):
            # It goes on from there once that is mended.
            raise
        except Exception:
            state.remove()
            raise
        state.remove()
        return score

    def _train(self, state: KeptState, score: Callable[[torch.nn.Module], float], on_epoch: OnEpoch) -> torch.nn.Module:
        def after_update() -> None:
            if self.most_seconds is not None and state.seconds > self.most_seconds:
                raise OutOfTimeError(f"it took longer than the {self.most_seconds:g} seconds that a candidate may")
            try:
                state.after_update()
            except CommandError as error:
                raise NotKeptError(str(error)) from error

        def after_epoch(epoch: int, epochs: int, loss: float, scored: torch.nn.Module) -> None:
            on_epoch(epoch, epochs, loss, lambda: score(scored))

        return train_on(state.trainer, after_epoch, after_update)

    def _save(self, model: torch.nn.Module, recipe: Recipe, folder: Path) -> None:
        try:
            folder.parent.mkdir(exist_ok=True)
            save_model(model, folder, data_config(model, recipe), self.train_set.classes)
        except (OSError, SafetensorError) as error:
            raise NotKeptError(
                f"can't write into {str(folder.parent)!r}: {system_reason(error) or one_line(error)}; make "
                "room and run the same command again: nothing that was finished is lost"
            ) from error

    def _identity(self, architecture: Architecture, trainer: Trainer) -> dict[str, Any]:
        """What makes this training another one than any other."""
        recipe, loader = trainer.recipe, trainer.loader
        return {
            "architecture": architecture.to_json(),
            "recipe": recipe.model_dump_json(exclude=FREE_KEYS),
            "images": len(self.train_set),
            "classes": self.num_classes,
            "updates": loader.updates,
            # What a stream gives, and in what order, depends on who reads it.
            "workers": worker_count(recipe) if loader.unreadable is None else None,
        }

    def rehearse(self, architecture: Architecture, img_size: int | None = None) -> None:
        """Take one step of a training, so that mistakes show before anything is written.

        Raises:
            UserError: model, recipe and data don't go together.
        """
        model = self.build(architecture)
        loaders = self.training_loader(model, img_size), self.scoring_loader(model, self.held_out, img_size)
        rehearse(model, self.sized(img_size), *loaders, self.processes)

    def score(self, model: torch.nn.Module, dataset: Any, img_size: int | None = None) -> float:
        """Top-1 of a model on a data set, in percent."""
        return evaluate(model, self.scoring_loader(model, dataset, img_size), self.processes, self.recipe)["top1"]

    def folder(self, architecture: Architecture, img_size: int | None = None, seed: int | None = None) -> Path:
        """Where the weights of a candidate that was trained with a seed are kept; None is the recipe's."""
        return weights_folder(self.output, architecture, img_size, self._further(seed))

    def _further(self, seed: int | None) -> int | None:
        """A seed that is not the recipe's own."""
        return None if seed == self.recipe.seed else seed

    def kept(self, architecture: Architecture, img_size: int | None = None, seed: int | None = None) -> Path:
        """The folder with a candidate's trained weights; where they were not kept it is trained again.

        Raises:
            CommandError: it can't be trained again.
        """
        folder = self.folder(architecture, img_size, seed)
        if not are_kept(folder):
            try:
                self(architecture, img_size, lambda epoch, epochs, loss, score: None, seed)
            except (OutOfTimeError, TrainingError) as error:
                raise CommandError(f"a candidate whose weights weren't kept can't be trained again: {error}") from error
        return folder

    def build(self, architecture: Architecture) -> torch.nn.Module:
        """The model of an architecture, with the weights that the recipe starts from."""
        weights = self.recipe.pretrained, self.recipe.initial_checkpoint
        return build_model(architecture.model_name, architecture.create_args, *weights, new_head=True)

    def sized(self, img_size: int | None, seed: int | None = None) -> Recipe:
        """The recipe for images of this size, and for this seed; None is the recipe's own."""
        values = {"img_size": img_size, "seed": seed}
        other = {key: value for key, value in values.items() if value is not None}
        return self.recipe.with_values(**other) if other else self.recipe

    def training_loader(
        self, model: torch.nn.Module, img_size: int | None = None, seed: int | None = None
    ) -> TrainingLoader:
        """The batches that a model trains on."""
        recipe = self.sized(img_size, seed)
        return TrainingLoader(self.train_set, recipe, data_config(model, recipe), self.num_classes, self.processes)

    def scoring_loader(self, model: torch.nn.Module, dataset: Any, img_size: int | None = None) -> ScoringLoader:
        """The batches that a model is scored on."""
        recipe = self.sized(img_size)
        return ScoringLoader(dataset, recipe, data_config(model, recipe), self.processes)
