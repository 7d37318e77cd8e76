"""The base of a search by fitted stand-ins: with weights that are there, or trained once by the recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cp_vision import Architecture

from ..recipes.models import build_model
from ..recipes.processes import single_process
from ..recipes.recipe.keys import Recipe
from ..recipes.run.training_run import Training
from .config.schema import SearchConfig
from .context import base_kwargs

__all__ = ["FitBase"]


class FitBase:
    """The base, checked, with nothing written yet.

    Where the recipe names weights, they are the base's. Else the recipe trains it, in a folder of its own, from which a
    training that was stopped goes on. It ends with the weights of the last epoch, or with ``model_ema`` their average:
    the best epoch would be chosen by the images that models are scored on.

    Args:
        config: of the search.
        base: the architecture.
        recipe: what trains it.
        folder: for the training.

    Attributes:
        is_trained: whether its weights are there.

    Raises:
        UserError: a training that can't begin, a folder of another one.
    """

    def __init__(self, config: SearchConfig, base: Architecture, recipe: Recipe, folder: Path) -> None:
        self._base, self._recipe = base, recipe
        self._weights: str | None = recipe.initial_checkpoint
        self._training: Training | None = None
        self.is_trained = recipe.pretrained or self._weights is not None
        if not self.is_trained:
            name = "ema" if recipe.model_ema else "last"
            self._weights = str(folder / name / "model.safetensors")
            own = recipe.with_values(model=base.base, model_kwargs=base_kwargs(config, recipe))
            self._training = Training(own, folder)
            self.is_trained = self._training.finished is not None

    def model(self) -> Any:
        """The base in eval mode, as far as it is trained.

        Raises:
            UserError: weights that can't be had.
        """
        weights = self._weights if self.is_trained else None
        built = build_model(self._base.base, self._base.model_args, self._recipe.pretrained, weights)
        return built.eval().to(single_process().device)

    def train(self, tell: Callable[[int, int, str], None] | None = None) -> None:
        """Train it, or go on with that, where it isn't trained yet.

        Args:
            tell: called after each epoch with epochs done, epochs in all and what is being done.

        Raises:
            CommandError: training broke off.
        """
        training, self._training = self._training, None
        if self.is_trained or training is None:
            return

        def epoch_done(row: Any) -> None:
            if tell is not None:
                tell(int(row["epoch"]), self._recipe.epochs, "training the base")

        training.run(on_epoch=epoch_done)
        self.is_trained = True
