"""The search by fitted stand-ins, from a config to folders that timm loads."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cp_vision.models.build import check_base
from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line, system_reason
from cp_vision.shared.files import check_path, make_folder, remove_unfinished

from ..recipes.data.evaluation_loader import ScoringLoader
from ..recipes.data.images import Images
from ..recipes.data.open import count_classes
from ..recipes.data.seeding import seed_all
from ..recipes.evaluation.numbering import open_as_stored
from ..recipes.models import data_config, save_model
from ..recipes.processes import single_process
from .config.addresses import hide_password
from .config.files import check_evaluator, write_config
from .config.recipe import search_recipe
from .config.schema import CONFIG_FILE, SearchConfig
from .context import base_architecture
from .evaluators.guessing import refuse_guessing
from .fit.budget import read_sweep
from .fit.compress import compress, fit_library
from .fit.forecast import Forecast, forecast
from .fit.images import is_held_out
from .fit.library import Tell
from .fit.library_files import count_fitted
from .fit.result import Compressed
from .fit.scores import SCORES, read_scores
from .fit_base import FitBase
from .outputs.fit_results import joined, point_values, read_results, values_of
from .outputs.fit_writer import model_card, write_fit_results
from .study.workers import folder_lock

__all__ = ["BASE", "LIBRARY", "FitSearch"]

# Folders in the output.
BASE, LIBRARY = "base", "library"
# Images a second are measured of single images and of batches.
_BATCH_SIZES = (1, 32)


class FitSearch:
    """A search by fitted stand-ins that is set up and checked, with nothing written yet.

    A base without weights is trained by the recipe first. Stand-ins are fitted to images of the training split, without
    labels and without augmentation; nothing is chosen by a label. The models and their counterparts are scored on the
    test split, once each.

    Args:
        config: of a search whose evaluator is ``fit``.

    Raises:
        UserError: base, weights, data and budgets don't go together, or the output folder holds another search.
        CommandError: the weights are those of other classes.
    """

    def __init__(self, config: SearchConfig) -> None:
        self.config, self.output, self._has_written = config, Path(config.output), False
        check_path(self.output)
        check_evaluator(config)
        self._check_output()
        check_base(config.base)
        self.budgets = read_sweep(config.budget_text)
        self.scores = None if config.scores is None else read_scores(config.scores)
        self.recipe = search_recipe(config)
        self.train, self.test = open_as_stored(self.recipe)
        if not isinstance(self.train, Images):
            raise UserError("the data set is streamed, so images can't be taken from it by number; use a folder")
        classes = count_classes(self.train, self.recipe)
        self._architecture = base_architecture(config, self.recipe, classes)
        seed_all(self.recipe.seed)
        self.base = self._open_base()
        self.model: Any = self.base.model()
        count = min(config.fit_images, len(self.train))
        self._fitted = [i * len(self.train) // count for i in range(count)]
        self.images = _Unlabelled(self._loader(self.train.part(self._fitted)))
        self._classes = classes
        if self.base.is_trained:
            self._refuse_guessing()

    def _check_output(self) -> None:
        """Raise a UserError where the folder holds what is no search's."""
        if self.output.exists() and not self.output.is_dir():
            raise UserError(f"output {str(self.output)!r} is a file; choose another --output")
        if not (self.output / CONFIG_FILE).exists():
            # What a kill may have left of one.
            names = {path.name for path in self.output.glob("[!.]*")} - {BASE, LIBRARY}
            if names:
                raise UserError(
                    f"output {str(self.output)!r} holds other files ({min(names)}); choose another --output"
                )

    def forecast(self) -> Forecast:
        """What it takes and what it can reach; nothing is written."""
        return forecast(self.model, self.images, self.budgets, self.config.fit_images, len(self.test), self.scores)

    def run(self, tell: Tell | None = None) -> Compressed:
        """Put the base under its budgets, and write a folder for each; goes on from what an earlier run left.

        Args:
            tell: called with done, total and what is being done.

        Raises:
            UserError: a budget can't be met, or the output folder holds a library of something else.
            CommandError: the output folder can't be written.
        """
        if not self.base.is_trained:
            # What can't be is told before an hour of training.
            self.forecast()
        make_folder(self.output)
        try:
            if not self.base.is_trained:
                with folder_lock(self.output):
                    self._train_base(tell)
            if self.config.executor == "ray" and self.scores is None:
                from .executors.ray_tasks import run_on_workers

                run_on_workers(self.config, self.recipe, _fit_library, self._follower(tell))
            return self._run(tell)
        except (OSError, SafetensorError) as error:
            reason = system_reason(error) or one_line(error)
            raise CommandError(
                f"output {str(self.output)!r} can't be written: {reason}; make room, and the same command goes on "
                "from its library"
            ) from error

    def fit_library(self) -> None:
        """Fit and score all options, beside other processes that do; nothing is chosen."""
        fit_library(self.model, self.images, self.budgets, limit=self.config.fit_images, folder=self.output / LIBRARY)

    def _follower(self, tell: Tell | None) -> Callable[[], None]:
        """Tells how far workers are with the library."""
        told = 0

        def look() -> None:
            nonlocal told
            fitted, blocks = count_fitted(self.output / LIBRARY)
            if tell is not None and fitted > told:
                tell(fitted, blocks, "options at blocks")
            told = fitted

        return look

    def _train_base(self, tell: Tell | None) -> None:
        remove_unfinished(self.output)
        self._write_config()
        # Another process may have trained it while this one waited.
        self.base = self._open_base()
        self.base.train(tell)
        self.model = self.base.model()
        self._refuse_guessing()

    def _run(self, tell: Tell | None) -> Compressed:
        scored = self._loader(self.test)
        old: dict[str, Any] | None = None

        @contextmanager
        def alone() -> Iterator[None]:
            """One process after another chooses, and adds to the tables of those before."""
            nonlocal old
            with folder_lock(self.output):
                remove_unfinished(self.output)
                remove_unfinished(self.output / LIBRARY)
                self._write_config()
                old = read_results(self.output)
                yield

        def note(done: int, total: int, what: str) -> None:
            if not self._has_written:
                # Something is there to go on with.
                with folder_lock(self.output):
                    self._write_config()
            if tell is not None:
                tell(done, total, what)

        def write(found: Compressed) -> None:
            """The newest model, and tables of all so far."""
            self._write_model(found)
            values = values_of(
                found,
                found.blocks,
                base=self.config.base,
                dataset=self.recipe.dataset or str(self.recipe.data_dir or ""),
                test_images=len(self.test),
                scores_of=self.config.scores,
                command=hide_password(self.config.command),
            )
            write_fit_results(joined(old, values), self.output)
            if self.scores is None and found.scores is not None:
                dataclasses.replace(found.scores, data=self._data_name).save(self.output / SCORES)

        return compress(
            self.model,
            self.images,
            [budget.text for budget in self.budgets],
            evaluate=lambda candidate: _right(candidate, scored),
            limit=self.config.fit_images,
            to_refit=self._further(self.config.refit_images) if self.config.refit_images else None,
            epochs=self.config.distil_epochs,
            training=self._further() if self.config.distil_epochs else None,
            batch_sizes=_BATCH_SIZES,
            scores=self.scores,
            folder=self.output / LIBRARY,
            progress=note,
            on_budget=write,
            alone=alone(),
        )

    def _write_config(self) -> None:
        if not self._has_written:
            write_config(self.config, self.output / CONFIG_FILE, recipe=self.recipe)
            self._has_written = True

    def _write_model(self, found: Compressed) -> None:
        """The folder of the last budget that was found."""
        point = found.points[-1]
        folder = self.output / point.budget
        files = {
            "metrics.json": json.dumps(point_values(point, found), indent=2) + "\n",
            "README.md": model_card(point, found, self.config.base, folder, hide_password(self.config.command)),
        }
        save_model(point.model, folder, data_config(point.model, self.recipe), self.train.classes, files)

    @property
    def _data_name(self) -> str:
        """The data set, without where it lies."""
        return self.recipe.dataset or Path(self.recipe.data_dir or "").name

    def _open_base(self) -> FitBase:
        return FitBase(self.config, self._architecture, self.recipe, self.output / BASE)

    def _refuse_guessing(self) -> None:
        accuracy = 100 * float(_right(self.model, self.images.loader).mean())
        refuse_guessing(accuracy, self._classes, len(self._fitted))

    def _loader(self, images: Any) -> ScoringLoader:
        return ScoringLoader(images, self.recipe, data_config(self.model, self.recipe), single_process())

    def _further(self, count: int | None = None) -> _Unlabelled:
        """So many training images, or all, in random order, but for those that scores are of."""
        held_out = {self._fitted[i] for i in is_held_out(0, len(self._fitted)).nonzero().flatten().tolist()}
        rest = [i for i in range(len(self.train)) if i not in held_out]
        random.Random(self.config.seed).shuffle(rest)
        return _Unlabelled(self._loader(self.train.part(rest[:count])))


def _fit_library(config: SearchConfig) -> None:
    """What a worker runs."""
    FitSearch(config).fit_library()


class _Unlabelled:
    """Images in order, as the model is evaluated on them; read anew each time."""

    def __init__(self, loader: ScoringLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Tensor]:
        for images, _ in self.loader:
            if len(images):
                yield images


@torch.inference_mode()
def _right(model: nn.Module, loader: ScoringLoader) -> Tensor:
    """For each image 1 where the model is right, else 0."""
    return torch.cat([(model(x).argmax(1) == labels).double() for x, labels in loader if len(labels)])
