"""A whole search, from a base and a budget to a winner that timm loads."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import torch
from timm.models import split_model_name_tag

from cp_vision import Architecture
from cp_vision.command_line import CommandError
from cp_vision.errors import UserError, one_line
from cp_vision.factory import check_base
from cp_vision.files import make_folder

from ..recipes.data import count_classes, hold_out, open_splits
from ..recipes.models import data_config, model_args
from ..recipes.processes import single_process
from .budget import parse_budget
from .config import SearchConfig, recipe_source, search_recipe
from .evaluate import Evaluator, OnEpoch, TrainEvaluator, weights_folder
from .executor import Leaders, Observer, leaders, run_trials
from .outputs import write_best, write_tables
from .proposals import Proposer, check_sampler
from .record import STUDY_FILE, Record, check_output
from .results import Candidate, Results
from .space import Choice, Space, measure_space

__all__ = ["Search", "run"]


class Search:
    """A search that is set up and checked, with nothing written yet.

    Args:
        config: what to search for.

    Raises:
        UserError: anything in the config that can't be used.
    """

    def __init__(self, config: SearchConfig) -> None:
        self.config, self.output = config, Path(config.output)
        if config.trials < 1:
            raise UserError(f"trials {config.trials} must be 1 or more")
        check_base(config.base)
        check_sampler(config.sampler)
        self.recipe = search_recipe(config)
        whole, self.test_set = open_splits(self.recipe)
        self.train_set, self.held_out = hold_out(whole, config.val_fraction)
        self.num_classes = count_classes(whole, self.recipe)
        kwargs = config.model_kwargs
        if kwargs is None:
            own = self.recipe.model.removeprefix("cp_") == split_model_name_tag(config.base)[0]
            kwargs = self.recipe.model_kwargs if own else {}
        args = model_args(config.base, self.recipe, self.num_classes, kwargs)
        base = Architecture(config.base, pool_options=config.pool_options, model_args=args)
        with torch.device("meta"):
            self.input_size = data_config(base.build(), self.recipe)["input_size"]
        self.space: Space = measure_space(base, self.input_size)
        self.budget = parse_budget(config.budget, self.space.base_macs)
        self.space.check_budget(self.budget)
        if config.trials == 1 and self.budget < self.space.base_macs:
            raise UserError("trials 1 is the base alone, which is over the budget; try 2 or more")
        self.refused, self.exhausted = 0, False
        check_output(self.output, self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that a candidate's score and the order of proposals depend on."""
        # What changes no result, or stands here in another form.
        other = {"model", "model_kwargs", "workers", "dataset_download", "validation_batch_size", "data_dir", "seed"}
        other |= {"log_interval", "recovery_interval", "val_interval", "eval_metric"}
        recipe = self.recipe.model_dump(mode="json", exclude=other)
        return {
            "base": self.config.base,
            "budget in MACs": self.budget,
            "data folder": str(Path(self.recipe.data_dir).resolve()) if self.recipe.data_dir else None,
            "number of images": [len(self.train_set), len(self.held_out), len(self.test_set)],
            "pool options": dict(self.space.base.pool_options),
            "sampler": self.config.sampler,
            "seed": self.config.seed,
            "validation fraction": self.config.val_fraction,
            **{f"model argument {key}": value for key, value in self.space.base.model_args.items()},
            **{f"recipe value {key}": value for key, value in recipe.items()},
        }

    def run(self, observer: Observer | None = None, evaluator: Evaluator | None = None) -> Results:
        """Search, or go on where an earlier run of the same search stopped.

        Args:
            observer: is told how it goes on.
            evaluator: scores candidates; None trains them by the recipe. With another one there are no
                weights, so the results end with the tables and the report.

        Raises:
            UserError: model, recipe and data don't go together, or another process searches in the output folder.
        """
        trainer = TrainEvaluator(
            self.recipe, self.train_set, self.held_out, self.num_classes, self.output, single_process()
        )
        if evaluator is None and not (self.output / STUDY_FILE).exists():
            trainer.rehearse(self.space.base)
        make_folder(self.output)
        with _only_process(self.output):
            check_output(self.output, self.settings)
            record = Record(self.output, self.settings, self.space, self.budget)
            proposer = Proposer(self.space, self.budget, self.config.sampler, self.config.seed)
            writer = _Writer(self, record, trainer if evaluator is None else None, observer or Observer())
            writer.on_begin(min(len(record.candidates()), self.config.trials))
            try:
                tried = run_trials(record, proposer, evaluator or trainer, self.config.trials, writer)
                self.exhausted = tried < self.config.trials
            finally:
                self.refused = proposer.refused
                write_tables(self.results(record), self.output)
            if evaluator is None:
                self._finish(record, trainer)
            results = self.results(record)
            write_tables(results, self.output)
            return results

    def results(self, record: Record) -> Results:
        """What the record holds."""
        candidates = record.candidates()
        now = leaders(candidates, self.budget)
        return Results(
            base=self.config.base,
            dataset=self.recipe.dataset or self.recipe.data_dir or "",
            recipe=self.recipe_name,
            command=self.config.command,
            seed=self.config.seed,
            budget=self.config.budget,
            budget_macs=self.budget,
            base_macs=self.space.base_macs,
            blocks=self.space.blocks,
            candidates=tuple(candidates),
            best=now.best.number if now.best else None,
            best_drops_only=now.best_drops_only.number if now.best_drops_only else None,
            test_accuracy=record.test_accuracy,
        )

    @property
    def recipe_name(self) -> str:
        """Name of the recipe, for people."""
        return Path(recipe_source(self.config)).stem

    def architecture(self, candidate: Candidate) -> Architecture:
        """The architecture of a candidate."""
        return self.space.architecture(self.space.choice(candidate.pools, candidate.drops))

    def _finish(self, record: Record, trainer: TrainEvaluator) -> None:
        """Score the winner and the baselines on the test split, once each, and write the winner's folder."""
        now = leaders(record.candidates(), self.budget)
        for candidate in now.all():
            if candidate.number in record.test_accuracy:
                continue
            model = trainer.kept_model(self.architecture(candidate))
            again = trainer.score(model, self.held_out)
            # Another machine or number of threads may turn a close call.
            if abs(again - (candidate.accuracy or 0.0)) > max(0.5, 100 / len(self.held_out)):
                raise CommandError(
                    f"candidate {candidate.number} scored {candidate.accuracy} % and scores {again} % when loaded "
                    f"from {weights_folder(self.output, self.architecture(candidate))}"
                )
            try:
                tested = trainer.score(model, self.test_set)
            except (OSError, RuntimeError) as error:
                raise CommandError(
                    f"can't score the test split: {one_line(error)}; once that is mended the same command goes on"
                ) from error
            record.set_test_accuracy(candidate.number, tested)
        if now.best is not None:
            winner = self.architecture(now.best)
            weights = weights_folder(self.output, winner)
            if not weights.is_dir():
                trainer.kept_model(winner)
            write_best(self.results(record), now.best, winner, self.recipe, weights, self.output)


class _Writer(Observer):
    """Keeps the tables and the disk in order while a search goes on, and passes everything on."""

    def __init__(self, search: Search, record: Record, trainer: TrainEvaluator | None, observer: Observer) -> None:
        self.search, self.record, self.trainer, self.observer = search, record, trainer, observer

    def on_begin(self, finished: int) -> None:
        self.observer.on_begin(finished)

    def on_start(self, choice: Choice) -> OnEpoch:
        return self.observer.on_start(choice)

    def on_finish(self, candidate: Candidate, now: Leaders) -> None:
        if self.trainer is not None:
            self.trainer.keep(self.search.architecture(c) for c in now.all())
        write_tables(self.search.results(self.record), self.search.output)
        self.observer.on_finish(candidate, now)


def run(config: SearchConfig, observer: Observer | None = None) -> Results:
    """Search; see :class:`SearchConfig`.

    Raises:
        UserError: anything in the config that can't be used; nothing is then written.
    """
    return Search(config).run(observer)


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system frees it when this process ends, however it ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            # A POSIX lock is the process's own: data loading processes that outlive it for a moment don't hold it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise UserError(f"another cp-search is running in {str(folder)!r}; wait for it to end") from error
        yield


optuna.logging.set_verbosity(optuna.logging.WARNING)
