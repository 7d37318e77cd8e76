"""A whole search, from a base and a budget to models that timm loads."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from cp_vision.shared.files import check_path, make_folder, remove_unfinished

from .config.files import write_config
from .config.schema import CONFIG_FILE, SearchConfig
from .context import SearchContext
from .evaluators.base import Evaluator
from .evaluators.checkpoints import keep_weights
from .evaluators.make import make_evaluator
from .evaluators.pruning import Pruner
from .evaluators.sensitivity import measure_sensitivity
from .evaluators.train import TrainEvaluator
from .executors.local import run_trials
from .executors.ray_cluster import check_cluster
from .observer import Observer
from .outputs.finalize import Finalizer
from .outputs.writer import ResultsWriter
from .samplers.bayesian import make_sampler_of
from .samplers.queue import TrialQueue
from .study.database import StudyDatabase
from .study.trials import TrialStore
from .study.workers import FINISH, Worker, folder_lock
from .types import Candidate, Results

__all__ = ["Search", "run"]


class Search(SearchContext):
    """A search that is set up and checked, with nothing written yet.

    Args:
        config: what to search for.

    Attributes:
        refused: proposals over a budget that this process met.
        exhausted: whether no new candidate within the budgets was found.
        recipe: trains every candidate.
        space: the space, with its budgets.
        input_size: (channels, height, width) of the base's images in pixels.
        test_set: what the winner and the baselines are scored on at the end.
        trainer: trains and scores a candidate by the recipe.
        place: where the study is kept.

    Raises:
        UserError: anything in the config that can't be used, or a study that is another search's.
    """

    refused, exhausted = 0, False

    def __init__(self, config: SearchConfig) -> None:
        check_path(Path(config.output))
        self.place = StudyDatabase(Path(config.output), config.storage, config.study)
        held = self.place.contents()
        self._kept_recipe = None if held is None else held.recipe_if_gone(config)
        super().__init__(config, self._kept_recipe, None if held is None else held.space)
        self.trainer = TrainEvaluator.of(self)
        self.place.check(self.contents())

    def open_study(self) -> tuple[optuna.Study, BaseStorage]:
        """Open the study, or make it; latencies are from now on those of whoever made it."""
        study, storage, held = self.place.load(self.contents())
        self.space = held.space
        return study, storage

    def run(self, observer: Observer | None = None, evaluator: Evaluator | None = None) -> Results:
        """Search, or go on where an earlier run of the same search stopped, beside others that run it.

        Args:
            observer: is told how it goes on.
            evaluator: scores candidates; None is the config's. With another one there are no weights, so the
                results end with the tables and the report.

        Returns:
            All candidates, the winner and the baselines among them, as the files in ``output`` say them.

        Raises:
            UserError: model, recipe and data don't go together, the output folder can't be made or holds another
                search; Ray is not installed, can't be reached, or no node of it has what a candidate asks for.
            CommandError: the search can't go on; nothing that was finished is lost.
        """
        observer = observer or Observer()
        if self.config.executor == "ray":
            check_cluster(self.config)
        if evaluator is None and self.place.held() is None and self.config.evaluator != "sensitivity":
            self.trainer.rehearse(self.space.base)
        make_folder(self.output)
        with self.place.errors():
            with folder_lock(self.output):
                remove_unfinished(self.output)
                study, storage = self.open_study()
                name = None if self.config.storage is None else self.place.name
                write_config(self.config, self.output / CONFIG_FILE, name, self._kept_recipe)
            with Worker(study, self.output) as worker:
                return self._run(TrialStore(study, storage, self.space, worker), observer, evaluator)

    def _run(self, record: TrialStore, observer: Observer, own: Evaluator | None) -> Results:
        config, writer = self.config, ResultsWriter(self.config, self.contents(), record)
        trains = own is None and config.evaluator != "supernet"
        proposer = make_sampler_of(self.space, config.sampler, config.seed, config.objective, config.keep_accuracy)
        finalists = config.finalists if config.evaluator == "supernet" else 0
        queue = TrialQueue(record, proposer, config.candidates, config.keep_accuracy, finalists)
        evaluator = own or make_evaluator(self, observer)

        def after_trial(candidate: Candidate) -> None:
            if trains:
                if candidate.is_base:
                    measure_sensitivity(self, record)
                with folder_lock(self.output):
                    record.sync()
                    keep_weights(self.output.absolute(), writer.with_weights())
            # A search of thousands of trials would else spend its time on this.
            writer.write(importance=candidate.number % 25 == 24)

        observer.on_begin(min(len(record.finished), config.candidates))
        try:
            if trains:
                measure_sensitivity(self, record)
            if config.executor == "ray":
                from .executors.ray import run_on_ray

                run_on_ray(config, record, queue, own, observer, after_trial)
            else:
                run_trials(record, queue, evaluator, Pruner(config.early_stop, record), observer, after_trial)
        finally:
            self.refused, self.exhausted = proposer.refused, queue.exhausted
            writer.write()
        if own is None and config.evaluator != "sensitivity":
            with folder_lock(self.output, FINISH):
                Finalizer(self, writer, observer).run()
        return writer.write()


def run(config: SearchConfig, observer: Observer | None = None) -> Results:
    """Search; see :class:`SearchConfig`.

    Returns:
        What :meth:`Search.run` does.

    Raises:
        UserError: anything in the config that can't be used; nothing is then written.
        CommandError: the search can't go on; nothing that was finished is lost.
    """
    return Search(config).run(observer)
