"""A whole search, from a base and a budget to models that timm loads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from optuna.exceptions import OptunaError

from cp_vision import Architecture
from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line
from cp_vision.shared.files import make_folder, remove_unfinished

from .config.addresses import hide_password
from .config.files import write_config
from .config.schema import CONFIG_FILE, SearchConfig
from .context import SearchContext
from .evaluators.base import Evaluator
from .evaluators.make import make_evaluator
from .evaluators.pruning import Pruner
from .executors.local import run_trials, take_next
from .executors.ray_environment import check_address, prepare_environment
from .observer import Observer
from .outputs.finalize import Finalizer
from .outputs.writer import ResultsWriter
from .samplers.budget import BudgetSampler
from .samplers.queue import TrialQueue
from .samplers.registry import make_sampler
from .space.space import genotype_key
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

    Attributes:
        exhausted: whether no new candidate within the budgets was found.
        recipe: trains every candidate.
        space: the space, with its budgets.
        input_size: (channels, height, width) of the base's images in pixels.
        test_set: what the winner and the baselines are scored on at the end.
        latency_table: where latency is asked for, that of each part in milliseconds.

    Raises:
        UserError: anything in the config that can't be used.
    """

    def __init__(self, config: SearchConfig) -> None:
        super().__init__(config)
        self.exhausted = False
        self._make_sampler()
        self._asking = ExitStack()
        self._asked: tuple[TrialQueue, ResultsWriter] | None = None
        self._leases: dict[int, Lease] = {}

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
                search, a Ray cluster can't be reached.
            CommandError: the search can't go on; nothing that was finished is lost.
            ImportError: the executor is ``ray``, and Ray is not installed.
        """
        observer = observer or Observer()
        self.close()
        if evaluator is None and self.place.held() is None and self.config.evaluator != "sensitivity":
            self.trainer.rehearse(self.space.base)
        if self.config.executor == "ray" and self.config.address is not None:
            check_address(self.config.address)
        with self._telling_storage_errors(), self._opened() as store:
            return self._run(store, observer, evaluator)

    def _run(self, store: TrialStore, observer: Observer, own: Evaluator | None) -> Results:
        config, writer = self.config, ResultsWriter(self, store, own is None and self.config.evaluator != "supernet")
        queue = self._queue(store)
        evaluator = own or make_evaluator(self, observer)
        observer.on_begin(min(len(store.finished), config.candidates))
        try:
            writer.measure_sensitivity()
            if config.executor == "ray":
                prepare_environment(config.address)
                from .executors.ray import run_on_ray

                run_on_ray(config, store, queue, own, observer, writer.after_trial)
            else:
                run_trials(store, queue, evaluator, Pruner(config.early_stop, store), observer, writer.after_trial)
        finally:
            self.exhausted = queue.exhausted
            writer.write()
        if own is None and config.evaluator != "sensitivity":
            with folder_lock(self.output, FINISH):
                Finalizer(writer, observer).run()
        return writer.write()

    def ask(self) -> Proposal | None:
        """The next candidate to score, to be told of by :meth:`tell`.

        Returns:
            The candidate; None where nothing is left, or where nothing can be chosen before a candidate that was asked
            for is told: the base, which comes first and alone, or at the end one that may become the winner.

        Raises:
            UserError: the output folder can't be made or holds another search.
            CommandError: the study can't be read or written.

        Example::

            with Search(SearchConfig("resnet18", trials=30)) as search:
                while (proposal := search.ask()) is not None:
                    search.tell(proposal.number, my_accuracy(proposal.architecture.build()))
        """
        with self._telling_storage_errors():
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
        with self._telling_storage_errors():
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
            if failed is not None and lease.choice == self.space.choice():
                store.void(lease.trial_id)
                raise CommandError(f"the base itself failed: {failed}")
            if failed is not None:
                candidate = store.finish(lease, "failed", reason=failed)
            else:
                candidate = store.finish(lease, "complete", accuracy=accuracy)
            writer.after_trial(candidate)
            return candidate

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
            self._asked = self._queue(store), ResultsWriter(self, store, trains=False)
        return self._asked

    def _make_sampler(self) -> BudgetSampler:
        config = self.config
        return make_sampler(config.sampler, self.space, config.seed, config.objective, config.keep_accuracy)

    def _queue(self, store: TrialStore) -> TrialQueue:
        finalists = self.config.finalists if self.config.evaluator == "supernet" else 0
        return TrialQueue(store, self.config.candidates, self.config.keep_accuracy, finalists)

    @contextmanager
    def _opened(self) -> Iterator[TrialStore]:
        """The trials of the study, which is made where there is none, with this process as one of its workers."""
        make_folder(self.output)
        with folder_lock(self.output):
            remove_unfinished(self.output)
            self.take_latencies()
            self.place.check(self.settings)
            study, storage = self.place.load(self.settings, {"latency": self.latency_table})
            write_config(self.config, self.output / CONFIG_FILE)
        study.sampler = self._make_sampler()
        with Worker(study, self.output) as worker:
            yield TrialStore(study, storage, self.space, worker)

    @contextmanager
    def _telling_storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OptunaError as error:
            raise CommandError(
                f"the study {self.place} can't be read or written: {hide_password(one_line(error))}; once that is "
                "repaired the same command goes on"
            ) from error


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
