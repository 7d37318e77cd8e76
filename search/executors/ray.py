"""Running a search with Ray Tune: on this machine's processors or on a cluster, with the record of any other search.

Tune runs the trials; what is tried, how often, and what came of it, stands in the record alone, so a search that is
killed goes on without Tune's own state.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from optuna.exceptions import OptunaError
from ray import tune
from ray._private import ray_constants
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line

from ..config.files import absolute
from ..config.schema import SearchConfig
from ..evaluators.base import Evaluator
from ..evaluators.pruning import Pruner
from ..observer import Observer
from ..samplers.queue import TrialQueue
from ..study.contents import StudyContents
from ..study.lease import MOST_ATTEMPTS, Lease
from ..study.trials import TrialStore
from ..types import Candidate
from .local import take_next

__all__ = ["run_on_ray"]


def run_on_ray(
    config: SearchConfig,
    record: TrialStore,
    queue: TrialQueue,
    evaluator: Evaluator | None,
    observer: Observer,
    after_trial: Callable[[Candidate], None],
) -> None:
    """Try candidates until the record holds as many as asked for; see :func:`run_trials`.

    Args:
        config: the search; workers set themselves up from it.
        record: what was tried.
        queue: what is tried next.
        evaluator: in place of the config's.
        observer: is told of each candidate that is tried.
        after_trial: called after each.

    Raises:
        CommandError: the base itself can't be scored, weights can't be written, or Ray can't be started.
        UserError: raised by an evaluator.
    """
    # Workers are in other folders, or on other machines.
    contents = StudyContents.from_attrs(record.study.user_attrs, "the study")
    config = absolute(config, contents.make_recipe()).with_values(output=Path(config.output).resolve())
    with _ray(config):
        cores = ray.cluster_resources().get("CPU", 1.0)
        parallel = config.parallel or max(1, math.floor(cores / max(config.cpus, 1e-6)))
        searcher = _Searcher(record, queue, observer, after_trial)
        scratch = Path(config.output) / ".ray" / record.worker.name
        for left in scratch.parent.glob("*"):
            if not record.worker.is_alive(left.name):
                shutil.rmtree(left, ignore_errors=True)
        trainable = tune.with_parameters(
            _light_trainable(),
            search=config,
            evaluator=evaluator,
            contents=contents,
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": config.cpus, "gpu": config.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=_Scheduler(Pruner(config.early_stop, record), searcher),
                num_samples=-1,
                max_concurrent_trials=parallel,
                reuse_actors=True,
                metric="accuracy",
                mode="max",
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(scratch),
                verbose=0,
                # The record begins those again whose worker died: of two errors for one dead worker, which are what
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


@contextmanager
def _ray(config: SearchConfig) -> Iterator[None]:
    """A Ray that is running already, the one at an address, or one on this machine alone."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if config.address is None:
        cores = os.cpu_count() or 1
        # Not one that somebody else left running here either.
        options |= {"address": "local", "include_dashboard": False}
        options["num_cpus"] = max(cores, math.ceil((config.parallel or 1) * config.cpus))
        # Ray read its environment where it was imported, which the user's program may have done before it was prepared.
        ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, True)
    else:
        options["address"] = config.address
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"address {config.address!r}: no Ray cluster can be reached there: {one_line(error)[:200]}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


class _Searcher(Searcher):
    """Gives Tune what comes next by the record, and writes what came of it."""

    def __init__(
        self, record: TrialStore, queue: TrialQueue, observer: Observer, after_trial: Callable[[Candidate], None]
    ) -> None:
        super().__init__(metric="accuracy", mode="max")
        self.record, self.queue, self.observer, self.after_trial = record, queue, observer, after_trial
        self.claims: dict[str, Lease] = {}
        self.stopped: set[str] = set()
        self.fatal: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next candidate; None where there is none for now."""
        if self.fatal is not None:
            return Searcher.FINISHED
        try:
            lease = take_next(self.record, self.queue, here=False)
        except OptunaError as error:
            self.fatal = error
            return Searcher.FINISHED
        if lease is None:
            return None if self.record.running else Searcher.FINISHED
        self.claims[trial_id] = lease
        self.observer.on_start(lease.choice)
        return {"choice": lease.choice}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """TrialStore what came of a candidate."""
        lease, stopped = self.claims.pop(trial_id, None), trial_id in self.stopped
        if lease is None:
            return
        try:
            self._write(lease, stopped, result or {}, error)
        except (CommandError, OSError, OptunaError, UserError) as fatal:
            # Raised here it would end Tune in the middle, and come out in its wrappings.
            self.fatal = self.fatal or fatal

    def _write(self, lease: Lease, stopped: bool, result: dict[str, Any], worker_died: bool) -> None:
        kind, reason = result.get("kind", "failed"), result.get("reason", "it ended without a result")
        if worker_died:
            if lease.attempts < MOST_ATTEMPTS:
                self.record.hand_back(lease)
                return
            kind, reason = "failed", f"its worker died {MOST_ATTEMPTS} times"
        fatal: dict[str, CommandError | UserError] = {"mistake": UserError(reason), "not kept": CommandError(reason)}
        if lease.choice == self.record.space.choice():
            fatal["failed"] = CommandError(f"the base itself failed: {reason}")
        if kind in fatal:
            self.record.void(lease.trial_id)
            raise fatal[kind]
        if stopped:
            candidate = self.record.finish(lease, "stopped", accuracy=result["accuracy"])
        elif kind == "complete":
            candidate = self.record.finish(lease, "complete", accuracy=result["accuracy"], params=result["params"])
        else:
            candidate = self.record.finish(lease, "failed", reason=reason)
        self.after_trial(candidate)
        self.observer.on_finish(candidate, self.queue.leaders())

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle: Tune's own state is not gone on from."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the record has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _Scheduler(FIFOScheduler):
    """Stops candidates early as :class:`Pruner` says: asynchronous successive halving, by default."""

    def __init__(self, stopper: Pruner, searcher: _Searcher) -> None:
        super().__init__()
        self.stopper, self.searcher = stopper, searcher

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle: Tune's own state is not gone on from."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Go on, or stop a candidate after one of its epochs."""
        lease = self.searcher.claims.get(trial.trial_id)
        if lease is None or result["kind"] != "epoch":
            return TrialScheduler.CONTINUE
        if self.stopper.stops(lease, result["epoch"], result["accuracy"], result["epochs"]):
            self.searcher.stopped.add(trial.trial_id)
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE
