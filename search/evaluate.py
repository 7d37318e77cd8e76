"""Scoring a candidate by training it with the recipe; its weights are kept while it has a role."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from timm.utils import random_seed

from cp_vision import Architecture

from ..recipes.loaders import TrainingLoader
from ..recipes.models import build_model, data_config, load_model, save_model
from ..recipes.processes import Processes
from ..recipes.rehearsal import rehearse
from ..recipes.schema import Recipe
from ..recipes.scoring import evaluate
from ..recipes.scoring_loader import ScoringLoader
from ..recipes.trainer import train

__all__ = ["Evaluator", "OnEpoch", "Score", "TrainEvaluator", "weights_folder"]

OnEpoch = Callable[[int, int, float], None]
"""Called after every epoch with its number from 1, the number of epochs and the mean loss."""


@dataclass(frozen=True)
class Score:
    """What came of one candidate: validation top-1 in percent, and its number of parameters."""

    accuracy: float
    params: int


class Evaluator(Protocol):
    """Scores one architecture; raises ``RuntimeError`` with a one-line reason where that fails."""

    def __call__(self, architecture: Architecture, on_epoch: OnEpoch) -> Score:
        """Score one architecture, calling ``on_epoch`` as it goes."""


def weights_folder(output: Path, architecture: Architecture) -> Path:
    """Where the weights of a candidate are kept."""
    return output / "weights" / hashlib.sha256(architecture.to_json().encode()).hexdigest()[:12]


class TrainEvaluator:
    """Trains a candidate on the training part and scores it on the held-out part.

    Every candidate starts from the same seed, so the same candidate gets the same score (on a CPU).

    Args:
        recipe: how to train; its seed is the seed.
        train_set: images to train on.
        held_out: images to score on.
        num_classes: number of classes.
        output: output folder of the search.
        processes: this process, and where it trains.
    """

    def __init__(
        self,
        recipe: Recipe,
        train_set: Any,
        held_out: Any,
        num_classes: int,
        output: Path,
        processes: Processes,
    ) -> None:
        self.recipe, self.num_classes, self.output, self.processes = recipe, num_classes, output, processes
        self.train_set, self.held_out = train_set, held_out

    def __call__(self, architecture: Architecture, on_epoch: OnEpoch) -> Score:
        """Train, score, and keep the weights."""
        random_seed(self.recipe.seed)
        model = self._build(architecture)
        model = train(model, self.recipe, self._training_loader(model), self.processes, on_epoch)
        folder = weights_folder(self.output, architecture)
        folder.parent.mkdir(exist_ok=True)
        save_model(model, folder, data_config(model, self.recipe), self.train_set.classes)
        params = sum(parameter.numel() for parameter in model.parameters())
        return Score(self.score(model, self.held_out), params)

    def rehearse(self, architecture: Architecture) -> None:
        """Take one step of a training, so that mistakes show before anything is written.

        Raises:
            UserError: model, recipe and data don't go together.
        """
        model = self._build(architecture)
        loaders = self._training_loader(model), self._scoring_loader(model, self.held_out)
        rehearse(model, self.recipe, *loaders, self.processes)

    def score(self, model: torch.nn.Module, dataset: Any) -> float:
        """Top-1 of a model on a data set, in percent."""
        return evaluate(model, self._scoring_loader(model, dataset), self.processes, self.recipe)["top1"]

    def kept_model(self, architecture: Architecture) -> torch.nn.Module:
        """A candidate's trained model, loaded as any user would load it; trained again if it wasn't kept."""
        folder = weights_folder(self.output, architecture)
        if not folder.is_dir():
            self(architecture, lambda epoch, epochs, loss: None)
        return load_model(folder)

    def keep(self, architectures: Iterable[Architecture]) -> None:
        """Delete the weights of all candidates but these, so that the disk stays bounded."""
        kept = {weights_folder(self.output, architecture) for architecture in architectures}
        for folder in (self.output / "weights").glob("*/"):
            if folder not in kept:
                shutil.rmtree(folder)

    def _build(self, architecture: Architecture) -> torch.nn.Module:
        return build_model(architecture.model_name, architecture.create_args, self.recipe.pretrained)

    def _training_loader(self, model: torch.nn.Module) -> TrainingLoader:
        config = data_config(model, self.recipe)
        return TrainingLoader(self.train_set, self.recipe, config, self.num_classes, self.processes)

    def _scoring_loader(self, model: torch.nn.Module, dataset: Any) -> ScoringLoader:
        return ScoringLoader(dataset, self.recipe, data_config(model, self.recipe), self.processes)
