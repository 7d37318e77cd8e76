"""A whole search, from a base and a budget to a winner that timm loads."""

from __future__ import annotations

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
from cp_vision.errors import UserError
from cp_vision.factory import check_base

from ..recipes.data import check_test_split, count_classes, hold_out, open_split
from ..recipes.models import data_config, model_args
from .budget import parse_budget
from .config import SearchConfig, recipe_source, search_recipe
from .evaluate import Evaluator, OnEpoch, TrainEvaluator, weights_folder
from .executor import Leaders, Observer, leaders, run_trials
from .outputs import write_best, write_tables
from .proposals import Proposer
from .record import Record, check_output
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
        self.recipe = search_recipe(config)
        self.train_set, self.held_out = hold_out(self.recipe, config.val_fraction)
        self.test_set = open_split(self.recipe, self.recipe.val_split, is_training=False)
        check_test_split(self.recipe, self.train_set, self.test_set)
        self.num_classes = count_classes(self.train_set, self.recipe)
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
        self.proposer = Proposer(self.space, self.budget, config.sampler, config.seed)
        check_output(self.output, self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that a candidate's score and the order of proposals depend on."""
        return {
            "base": self.config.base,
            "budget": self.budget,
            "model": dict(self.space.base.model_args),
            "pool options": dict(self.config.pool_options),
            "recipe": self.recipe.model_dump(exclude={"model", "model_kwargs", "workers"}),
            "sampler": self.config.sampler,
            "seed": self.config.seed,
            "validation fraction": self.config.val_fraction,
        }

    def run(self, observer: Observer | None = None, evaluator: Evaluator | None = None) -> Results:
        """Search, or go on where an earlier run of the same search stopped.

        Args:
            observer: is told how it goes on.
            evaluator: scores candidates; None trains them by the recipe. With another one there are no
                weights, so the results end with the tables and the report.

        Raises:
            UserError: another process searches in the output folder.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        with _only_process(self.output):
            check_output(self.output, self.settings)
            record = Record(self.output, self.settings, self.space, self.budget)
            trainer = TrainEvaluator(
                self.recipe,
                self.train_set,
                self.held_out,
                self.num_classes,
                self.output,
                torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            )
            writer = _Writer(self, record, trainer if evaluator is None else None, observer or Observer())
            writer.on_begin(min(len(record.candidates()), self.config.trials))
            try:
                run_trials(record, self.proposer, evaluator or trainer, self.config.trials, writer)
            finally:
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
            # The same weights give the same score on a CPU; a GPU may turn a close call or two.
            if abs(again - (candidate.accuracy or 0.0)) > (0 if trainer.device.type == "cpu" else 0.5):
                raise CommandError(
                    f"candidate {candidate.number} scored {candidate.accuracy} % and scores {again} % when loaded "
                    f"from {weights_folder(self.output, self.architecture(candidate))}"
                )
            record.set_test_accuracy(candidate.number, trainer.score(model, self.test_set))
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
    """Hold the folder's lock; the system frees it whatever happens to this process."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another cp-search is running in {str(folder)!r}; wait for it to end") from error
        yield


optuna.logging.set_verbosity(optuna.logging.WARNING)
