"""Running a search with Ray Tune: on this machine's processors or on a cluster, with the study of any other search.

Tune runs the trials; what is tried, how often, and what came of it, stands in the study alone, so a search that is
killed goes on without Tune's own state.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError

from ..config.schema import SearchConfig
from ..evaluators.base import Evaluator
from ..evaluators.pruning import Pruner
from ..observer import Observer
from ..samplers.queue import TrialQueue
from ..study.contents import StudyContents
from ..study.lease import Lease
from ..study.trials import TrialStore
from ..types import Candidate
from .local import take_next
from .outcome import Outcome, record_outcome
from .ray_cluster import for_workers, how_many_fit, on_cluster, wanted_resources

__all__ = ["run_on_ray"]


def run_on_ray(
    config: SearchConfig,
    store: TrialStore,
    queue: TrialQueue,
    evaluator: Evaluator | None,
    observer: Observer,
    after_trial: Callable[[Candidate], None],
) -> None:
    """Try candidates until the store holds as many as asked for; see :func:`run_trials`.

    Args:
        config: the search; workers set themselves up from it.
        store: what was tried.
        queue: what is tried next.
        evaluator: in place of the config's.
        observer: is told of each candidate that is tried.
        after_trial: called after each.

    Raises:
        CommandError: the base itself can't be scored, weights can't be written, or Ray can't be started.
        UserError: raised by an evaluator, or no node has what a candidate asks for.
    """
    contents = StudyContents.from_attrs(store.study.user_attrs, "the study")
    config = for_workers(config, contents.make_recipe())
    searcher = _Searcher(store, queue, observer, after_trial)
    scratch = Path(config.output) / ".ray" / store.worker.name
    for left in scratch.parent.glob("*"):
        if not store.worker.is_alive(left.name):
            shutil.rmtree(left, ignore_errors=True)
    with on_cluster(config) as nodes:
        wanted = wanted_resources(config)
        fitting = how_many_fit(wanted, nodes)
        trainable = tune.with_parameters(_light_trainable(), search=config, evaluator=evaluator, contents=contents)
        tuner = tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([wanted])),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=_Scheduler(Pruner(config.early_stop, store), searcher),
                num_samples=-1,
                max_concurrent_trials=config.parallel or fitting,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(scratch),
                verbose=0,
                stop=_EndOfSearch(searcher),
                # The study begins those again whose worker died: of two errors for one dead worker, which are what
                # Tune gets where it was about to reuse it, the second ends Tune's own attempts.
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        try:
            tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if searcher.fatal is not None:
        raise searcher.fatal


def _light_trainable() -> Callable[..., None]:
    """What a worker runs, without a reference to this package, which takes seconds to import.

    A function in a function is sent by value, so a worker starts in two seconds or three and imports what it needs in
    its first trial. While a worker starts, Tune may give its candidate to another that is free and end it: candidates
    that take less time than the start never get a second worker.
    """

    def run(config: dict[str, Any], **parameters: Any) -> None:
        from .ray_worker import run_candidate

        run_candidate(config, **parameters)

    return run


class _Unsaved:
    """A part of a search that Tune would pickle into its own state, which is not gone on from."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle."""
        return {}


class _Searcher(_Unsaved, Searcher):
    """Gives Tune what comes next by the study, and writes what came of it."""

    def __init__(
        self, store: TrialStore, queue: TrialQueue, observer: Observer, after_trial: Callable[[Candidate], None]
    ) -> None:
        super().__init__()
        self.store, self.queue, self.observer, self.after_trial = store, queue, observer, after_trial
        self.leases: dict[str, Lease] = {}
        self.stopped: set[str] = set()
        self.fatal: Exception | None = None

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Keep what ends the search: raised in Tune, it would come out in Tune's wrappings."""
        try:
            yield
        except (CommandError, OSError, OptunaError, UserError) as fatal:
            self.fatal = self.fatal or fatal

    def suggest(self, trial_id: str) -> Any:
        """The next candidate; None where there is none for now."""
        lease = None
        with self.ending():
            lease = None if self.fatal else take_next(self.store, self.queue, here=False)
        if lease is None:
            return None if self.store.running and self.fatal is None else Searcher.FINISHED
        self.leases[trial_id] = lease
        self.observer.on_start(lease.choice, lease.seed)
        architecture, img_size = self.store.space.architecture(lease.choice), self.store.space.img_size(lease.choice)
        return {
            "architecture": architecture.to_json(),
            "img_size": img_size,
            "seed": lease.seed,
            "passed": lease.passed,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Write what came of a candidate."""
        lease, result = self.leases.pop(trial_id, None), result or {}
        if lease is None:
            return
        if trial_id in self.stopped:
            outcome = Outcome("stopped", result["accuracy"])
        elif error or "kind" not in result:
            outcome = Outcome("died")
        else:
            outcome = Outcome(**{name: result[name] for name in ("kind", "accuracy", "params", "reason")})
        with self.ending():
            candidate = record_outcome(self.store, lease, outcome)
            if candidate is not None:
                self.after_trial(candidate)
                self.observer.on_finish(candidate, self.queue.leaders())

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _Scheduler(_Unsaved, FIFOScheduler):
    """Stops candidates early as :class:`Pruner` says: asynchronous successive halving, by default."""

    def __init__(self, pruner: Pruner, searcher: _Searcher) -> None:
        super().__init__()
        self.pruner, self.searcher = pruner, searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Go on, or stop a candidate after one of its epochs."""
        lease = self.searcher.leases.get(trial.trial_id)
        if lease is None or "kind" in result:
            return TrialScheduler.CONTINUE
        with self.searcher.ending():
            if self.pruner.stops(lease, result["epoch"], result["accuracy"], result["epochs"]):
                self.searcher.stopped.add(trial.trial_id)
                return TrialScheduler.STOP
            self.pruner.store.let_pass(lease, result["epoch"])
        return TrialScheduler.CONTINUE


class _EndOfSearch(_Unsaved, tune.Stopper):
    """Ends what other workers run where the search can't go on; it is begun again when the search goes on."""

    def __init__(self, searcher: _Searcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No candidate is stopped by its own results here."""
        return False

    def stop_all(self) -> bool:
        """Whether the search can't go on."""
        return self.searcher.fatal is not None
