"""A whole search, from a base and a budget to models that timm loads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from cp_vision import Architecture
from cp_vision.shared.errors import UserError
from cp_vision.shared.files import check_path, make_folder, needs_room, remove_unfinished

from .config.files import check_evaluator, write_config
from .config.schema import CONFIG_FILE, SearchConfig
from .context import SearchContext
from .evaluators.base import Evaluator
from .evaluators.checkpoints import keep_weights
from .evaluators.make import make_evaluator
from .evaluators.pruning import Pruner
from .evaluators.sensitivity import measure_sensitivity
from .evaluators.train import TrainEvaluator
from .executors.local import run_trials, take_next
from .executors.outcome import Outcome, record_outcome
from .executors.ray_cluster import check_cluster
from .observer import Observer
from .outputs.finalize import Finalizer
from .outputs.writer import ResultsWriter
from .samplers.budget import BudgetSampler
from .samplers.queue import TrialQueue
from .samplers.registry import make_sampler
from .space.space import genotype_key
from .study.database import StudyDatabase
from .study.lease import Lease
from .study.trials import TrialStore
from .study.workers import FINISH, Worker, folder_lock
from .types import Candidate, Results

__all__ = ["Proposal", "Search", "run"]


@dataclass(frozen=True)
class Proposal:
    """A candidate to score; see :meth:`Search.ask`.

    Attributes:
        number: its number in the study, which :meth:`Search.tell` takes.
        architecture: what it is: ``architecture.build()`` is the model, untrained.
        img_size: side of its images in pixels; None where it is the recipe's.
    """

    number: int
    architecture: Architecture
    img_size: int | None


class Search(SearchContext):
    """A search that is set up and checked, with nothing written yet.

    :meth:`run` does all of it. :meth:`ask` and :meth:`tell` leave the scoring to the caller, on the same study and
    folder; as a context manager a search gives back at the end what was asked for and not told.

    Args:
        config: what to search for.
        planned: only tell of it: what the output folder holds is no matter.

    Attributes:
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

    def __init__(self, config: SearchConfig, planned: bool = False) -> None:
        check_path(Path(config.output))
        check_evaluator(config)
        self.place = StudyDatabase(Path(config.output), config.storage, config.study)
        held = None if planned else self.place.contents()
        self._kept_recipe = None if held is None else held.recipe_if_gone(config)
        super().__init__(config, self._kept_recipe, None if held is None else held.space)
        self.trainer = TrainEvaluator.of(self)
        self.exhausted = False
        self._make_sampler()
        if not planned:
            self.place.check(self.contents())
        self._asking = ExitStack()
        self._asked: tuple[TrialQueue, ResultsWriter] | None = None
        self._leases: dict[int, Lease] = {}

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
        self.close()
        if self.config.executor == "ray":
            check_cluster(self.config)
        if evaluator is None and self.place.held() is None and self.config.evaluator != "sensitivity":
            self.trainer.rehearse(self.space.base)
        with self._errors_told(), self._opened() as store:
            return self._run(store, observer, evaluator)

    def _run(self, store: TrialStore, observer: Observer, own: Evaluator | None) -> Results:
        config, writer = self.config, ResultsWriter(self.config, self.contents(), store)
        queue = self._queue(store, repeats=own is None)
        trains = own is None and config.evaluator != "supernet"
        evaluator = own or make_evaluator(self, observer)

        def after_trial(candidate: Candidate) -> None:
            if trains:
                if candidate.is_base:
                    measure_sensitivity(self, store)
                with folder_lock(self.output):
                    store.sync()
                    keep_weights(self.output.absolute(), writer.with_weights())
            # A search of thousands of trials would else spend its time on this.
            writer.write(importance=candidate.number % 25 == 24)

        observer.on_begin(min(len(store.finished), config.candidates))
        try:
            if trains:
                measure_sensitivity(self, store)
            if config.executor == "ray":
                from .executors.ray import run_on_ray

                run_on_ray(config, store, queue, own, observer, after_trial)
            else:
                pruner = Pruner(config.early_stop, store)
                run_trials(store, queue, evaluator, self.trainer, pruner, observer, after_trial)
        finally:
            self.exhausted = queue.exhausted
            writer.write()
        if own is None and config.evaluator != "sensitivity":
            with folder_lock(self.output, FINISH):
                Finalizer(self, writer).run()
        return writer.write()

    def ask(self) -> Proposal | None:
        """The next candidate to score, to be told of by :meth:`tell`.

        Returns:
            The candidate; None where nothing is left, or where nothing can be chosen before a candidate that was asked
            for is told: the base, beside which only a few others can be tried that drop blocks, or at the end one that
            may become the winner.

        Raises:
            UserError: the output folder can't be made or holds another search.
            CommandError: the study can't be read or written.

        Example::

            with Search(SearchConfig(base="resnet18", trials=30)) as search:
                while (proposal := search.ask()) is not None:
                    search.tell(proposal.number, my_accuracy(proposal.architecture.build()))
        """
        with self._errors_told():
            queue, _ = self._asking_session()
            lease = take_next(queue.store, queue)
            self.exhausted = queue.exhausted
            if lease is None:
                return None
            number = queue.store.keys()[genotype_key(lease.choice)]
            self._leases[number] = lease
            return Proposal(number, self.space.architecture(lease.choice), self.space.img_size(lease.choice))

    def tell(self, number: int, accuracy: float | None = None, *, failed: str | None = None) -> Candidate:
        """Say what came of a candidate, and bring the tables and the report up to date.

        Args:
            number: of the candidate; it may have been asked for by another process, which ended since.
            accuracy: validation top-1 in percent.
            failed: why there is no accuracy, in place of one.

        Returns:
            The candidate, as it stands in the study.

        Raises:
            UserError: there is no such candidate, it is finished or another process tries it; or not one of
                ``accuracy`` and ``failed``, or an accuracy that is not finite.
            CommandError: the base has failed, or the study can't be written.
        """
        if (accuracy is None) == (failed is None):
            raise UserError(f"candidate {number}: tell either its accuracy or why it failed")
        if accuracy is not None and not math.isfinite(accuracy):
            raise UserError(f"candidate {number}: accuracy {accuracy} must be a finite number, in percent")
        with self._errors_told():
            queue, writer = self._asking_session()
            store = queue.store
            store.sync()
            if not 0 <= number < len(store.trials):
                raise UserError(f"candidate {number} is not there; the study has {len(store.trials)}, from 0")
            if store.trials[number].state.is_finished():
                raise UserError(f"candidate {number} is finished: its result is in the study")
            lease = self._leases.pop(number, None) or store.lease(number)
            if lease is None:
                raise UserError(f"candidate {number} is being tried by another process, which must end first")
            outcome = Outcome("complete", accuracy) if failed is None else Outcome("failed", reason=failed)
            record_outcome(store, lease, outcome)
            writer.write()
            return store.all()[number]

    def close(self) -> None:
        """Give back what was asked for and not told, so that anybody may try it."""
        self._asking.close()
        self._asked = None
        self._leases.clear()

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asking_session(self) -> tuple[TrialQueue, ResultsWriter]:
        """What :meth:`ask` and :meth:`tell` work on until the search is closed."""
        if self._asked is None:
            store = self._asking.enter_context(self._opened())
            self._asked = self._queue(store, repeats=False), ResultsWriter(self.config, self.contents(), store)
        return self._asked

    def _make_sampler(self) -> BudgetSampler:
        config = self.config
        return make_sampler(config.sampler, self.space, config.seed, config.objective, config.keep_accuracy)

    def _queue(self, store: TrialStore, repeats: bool) -> TrialQueue:
        """What comes next; with further trainings of finalists where the scores are ours."""
        config = self.config
        finalists, seeds = (config.finalists, config.further_seeds) if repeats else (1, ())
        return TrialQueue(store, config.candidates, config.keep_accuracy, finalists, seeds)

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Say in one line that the study can't be read or written, or that there is no room for other files."""
        with needs_room(self.output), self.place.errors():
            yield

    @contextmanager
    def _opened(self) -> Iterator[TrialStore]:
        """The trials of the study, which is made where there is none, with this process as one of its workers."""
        make_folder(self.output)
        with folder_lock(self.output):
            remove_unfinished(self.output)
            study, storage = self.open_study()
            name = None if self.config.storage is None else self.place.name
            write_config(self.config, self.output / CONFIG_FILE, name, self._kept_recipe)
        study.sampler = self._make_sampler()
        with Worker(study, self.output) as worker:
            trained = self.config.evaluator == "train"
            yield TrialStore(study, storage, self.space, worker, self.config.seed, trained)


def run(config: SearchConfig, observer: Observer | None = None) -> Results:
    """Search; see :class:`SearchConfig`.

    Returns:
        What :meth:`Search.run` does.

    Raises:
        UserError: anything in the config that can't be used; nothing is then written.
        CommandError: the search can't go on; nothing that was finished is lost.
        ImportError: the executor is ``ray``, and Ray is not installed.
    """
    return Search(config).run(observer)
