"""Running a search in this process, alone or beside others that share its study."""

from __future__ import annotations

import time
from collections.abc import Callable

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError

from ..evaluators.base import Evaluator, NotKeptError, OnEpoch, StoppedEarly
from ..evaluators.pruning import Pruner, is_rung
from ..observer import Observer
from ..samplers.queue import TrialQueue
from ..study.lease import MOST_ATTEMPTS, Lease
from ..study.trials import TrialStore
from ..types import Candidate
from .outcome import describe_failure, finite

__all__ = ["run_trials", "take_next"]

_POLL = 0.5


def take_next(record: TrialStore, queue: TrialQueue, here: bool = True) -> Lease | None:
    """Lease what comes next: what a dead process left first; None where there is nothing for now.

    Args:
        record: what was tried.
        queue: what is tried next.
        here: whether it runs in this process.
    """
    while True:
        record.sync()
        lease = record.take_over(here)
        if lease is not None:
            return lease
        proposal = queue.next()
        if proposal is None:
            return None
        lease = record.claim(proposal, here)
        if lease is not None:
            return lease


def run_trials(
    record: TrialStore,
    queue: TrialQueue,
    evaluator: Evaluator,
    stopper: Pruner,
    observer: Observer,
    after_trial: Callable[[Candidate], None],
) -> None:
    """Try candidates until the record holds as many as asked for, and nobody runs any.

    Args:
        record: what was tried.
        queue: what is tried next.
        evaluator: how candidates are scored.
        stopper: which of them are stopped early.
        observer: is told of each candidate that is tried.
        after_trial: called after each, before the next is chosen.

    Raises:
        CommandError: the base itself can't be scored, or weights can't be written.
        UserError: raised by an evaluator.
    """
    while True:
        lease = take_next(record, queue)
        if lease is not None:
            candidate = _try(record, evaluator, stopper, lease, observer)
            after_trial(candidate)
            observer.on_finish(candidate, queue.leaders())
        elif record.running:
            observer.on_wait(len(record.running))
            time.sleep(_POLL)
        else:
            return


def _try(record: TrialStore, evaluator: Evaluator, stopper: Pruner, lease: Lease, observer: Observer) -> Candidate:
    """Score one candidate and record it."""
    choice, space = lease.choice, record.space
    is_base = choice == space.choice()
    if not is_base and space.excess(choice) > 0:
        raise CommandError(f"a candidate over the budget was about to be tried: {choice}")
    if is_base and lease.attempts > MOST_ATTEMPTS:
        record.void(lease.trial_id)
        raise CommandError(f"the base itself ended this process {MOST_ATTEMPTS} times before it was scored")
    try:
        score = evaluator(space.architecture(choice), space.img_size(choice), _watch(stopper, lease, observer))
        return record.finish(lease, "complete", accuracy=finite(score.accuracy), params=score.params)
    except StoppedEarly as stop:
        return record.finish(lease, "stopped", accuracy=stop.accuracy)
    except (UserError, NotKeptError):
        record.void(lease.trial_id)
        raise
    except Exception as error:
        # Out of memory or time, a loss that is not finite, images that can't be read: recorded with its reason, and
        # the search goes on.
        reason = describe_failure(error)
        if is_base:
            record.void(lease.trial_id)
            raise CommandError(f"the base itself can't be trained: {reason}") from error
        return record.finish(lease, "failed", reason=reason)


def _watch(stopper: Pruner, lease: Lease, observer: Observer) -> OnEpoch:
    show = observer.on_start(lease.choice)

    def on_epoch(epoch: int, epochs: int, loss: float, score: Callable[[], float]) -> None:
        show(epoch, epochs, loss)
        if is_rung(stopper.name, epoch, epochs):
            accuracy = finite(score())
            if stopper.stops(lease, epoch, accuracy, epochs):
                raise StoppedEarly(accuracy)

    return on_epoch
