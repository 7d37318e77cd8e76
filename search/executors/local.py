"""Running a search in this process, alone or beside others that share its study."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from cp_vision.shared.command_line import CommandError

from ..evaluators.base import Evaluator, OnEpoch, SeededEvaluator, StoppedEarly
from ..evaluators.pruning import Pruner, is_rung
from ..observer import Observer
from ..samplers.queue import TrialQueue
from ..study.lease import MOST_ATTEMPTS, Lease
from ..study.trials import TrialStore
from ..types import Candidate
from .outcome import Outcome, finite, outcome_of, record_outcome

__all__ = ["run_trials", "take_next"]

_POLL = 0.5


def take_next(store: TrialStore, queue: TrialQueue, here: bool = True) -> Lease | None:
    """Lease what comes next: what a dead process left first; None where there is nothing for now.

    Args:
        store: what was tried.
        queue: what is tried next.
        here: whether it runs in this process.

    Raises:
        CommandError: the base has ended too many processes.
    """
    while True:
        store.sync()
        lease = store.take_over(here)
        if lease is None:
            proposal = queue.next()
            if proposal is None:
                return None
            lease = store.claim(proposal.choice, here, proposal.seed)
        if lease is None:
            continue
        if lease.attempts > MOST_ATTEMPTS:
            record_outcome(store, lease, Outcome("died"))
        elif lease.choice != store.space.choice() and store.space.excess(lease.choice) > 0:
            raise CommandError(f"a candidate over the budget was about to be tried: {lease.choice}")
        else:
            return lease


def run_trials(
    store: TrialStore,
    queue: TrialQueue,
    evaluator: Evaluator,
    trainer: SeededEvaluator,
    pruner: Pruner,
    observer: Observer,
    after_trial: Callable[[Candidate], None],
) -> None:
    """Try candidates until the store holds as many as asked for, the finalists are trained, and nobody runs any.

    Args:
        store: what was tried.
        queue: what is tried next.
        evaluator: how candidates are scored.
        trainer: how finalists are.
        pruner: which of them are stopped early.
        observer: is told of each candidate that is tried.
        after_trial: called after each, before the next is chosen.

    Raises:
        CommandError: the base itself can't be scored, or weights can't be written.
        UserError: raised by an evaluator.
    """
    while True:
        lease = take_next(store, queue)
        if lease is None:
            if not store.running:
                return
            observer.on_wait(len(store.running))
            time.sleep(_POLL)
            continue
        architecture, img_size = store.space.architecture(lease.choice), store.space.img_size(lease.choice)
        on_epoch = _watch(pruner, lease, observer)
        if lease.seed is None:
            outcome = outcome_of(partial(evaluator, architecture, img_size, on_epoch))
        else:
            outcome = outcome_of(partial(trainer, architecture, img_size, on_epoch, lease.seed))
        candidate = record_outcome(store, lease, outcome)
        if candidate is not None:
            after_trial(candidate)
            observer.on_finish(candidate, queue.leaders())


def _watch(pruner: Pruner, lease: Lease, observer: Observer) -> OnEpoch:
    show = observer.on_start(lease.choice, lease.seed)

    def on_epoch(epoch: int, epochs: int, loss: float, score: Callable[[], float]) -> None:
        show(epoch, epochs, loss)
        # Finalists are trained to their end.
        if lease.seed is None and is_rung(pruner.name, epoch, epochs) and epoch > lease.passed:
            accuracy = finite(score())
            if pruner.stops(lease, epoch, accuracy, epochs):
                raise StoppedEarly(accuracy)
            pruner.store.let_pass(lease, epoch)

    return on_epoch
