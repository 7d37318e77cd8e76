"""Running a search in this process, alone or beside others that share its study."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from cp_vision.command_line import CommandError
from cp_vision.errors import UserError, one_line

from .claim import MOST_ATTEMPTS, Claim
from .evaluate import Evaluator, NotKeptError, OnEpoch, StoppedEarly
from .leaders import Leaders
from .record import Record
from .results import Candidate
from .space import Choice
from .stopping import Stopper, is_rung
from .strategy import Strategy

__all__ = ["Observer", "describe_failure", "finite", "run_trials", "take_next"]

_POLL = 0.5


class Observer:
    """Is told how a search goes on. This one does nothing with it."""

    def on_begin(self, finished: int) -> None:
        """The search begins, with so many candidates in the record."""

    def on_phase(self, name: str, parts: int) -> None:
        """Something other than trying candidates begins, in so many parts.

        Args:
            name: ``shared weights``, whose parts are epochs, or ``finalists``, whose parts are candidates.
            parts: how many there are.
        """

    def on_part(self, name: str, done: float) -> None:
        """So many parts of it are done; epochs in fractions, too."""

    def on_start(self, choice: Choice) -> Callable[[int, int, float], None]:
        """A candidate is about to be tried; returns what to call after each of its epochs.

        That takes the number of the epoch from 1, the number of epochs, and the mean loss.
        """
        return lambda epoch, epochs, loss: None

    def on_finish(self, candidate: Candidate, now: Leaders) -> None:
        """A candidate was tried or has failed; ``now`` is who leads by then."""

    def on_wait(self, running: int) -> None:
        """There is nothing to do until others finish the candidates that they run, so many of them."""


def take_next(record: Record, strategy: Strategy, here: bool = True) -> Claim | None:
    """Claim what comes next: what a dead process left first; None where there is nothing for now.

    Args:
        record: what was tried.
        strategy: what is tried next.
        here: whether it runs in this process.
    """
    while True:
        record.sync()
        claim = record.take_over(here)
        if claim is not None:
            return claim
        proposal = strategy.next()
        if proposal is None:
            return None
        claim = record.claim(*proposal, here)
        if claim is not None:
            return claim


def run_trials(
    record: Record,
    strategy: Strategy,
    evaluator: Evaluator,
    stopper: Stopper,
    observer: Observer,
    after_trial: Callable[[Candidate], None],
) -> None:
    """Try candidates until the record holds as many as asked for, and nobody runs any.

    Args:
        record: what was tried.
        strategy: what is tried next.
        evaluator: how candidates are scored.
        stopper: which of them are stopped early.
        observer: is told of each candidate that is tried.
        after_trial: called after each, before the next is chosen.

    Raises:
        CommandError: the base itself can't be scored, or weights can't be written.
        UserError: raised by an evaluator.
    """
    while True:
        claim = take_next(record, strategy)
        if claim is not None:
            candidate = _try(record, evaluator, stopper, claim, observer)
            after_trial(candidate)
            observer.on_finish(candidate, strategy.leaders())
        elif record.running:
            observer.on_wait(len(record.running))
            time.sleep(_POLL)
        else:
            return


def _try(record: Record, evaluator: Evaluator, stopper: Stopper, claim: Claim, observer: Observer) -> Candidate:
    """Score one candidate and record it."""
    choice, space = claim.choice, record.space
    is_base = choice == space.choice()
    if not is_base and space.excess(choice) > 0:
        raise CommandError(f"a candidate over the budget was about to be tried: {choice}")
    if is_base and claim.attempts > MOST_ATTEMPTS:
        record.void(claim.trial_id)
        raise CommandError(f"the base itself ended this process {MOST_ATTEMPTS} times before it was scored")
    try:
        score = evaluator(space.architecture(choice), space.img_size(choice), _watch(stopper, claim, observer))
        return record.finish(claim, "complete", accuracy=finite(score.accuracy), params=score.params)
    except StoppedEarly as stop:
        return record.finish(claim, "stopped", accuracy=stop.accuracy)
    except (UserError, NotKeptError):
        record.void(claim.trial_id)
        raise
    except Exception as error:
        # Out of memory or time, a loss that is not finite, images that can't be read: recorded with its reason, and
        # the search goes on.
        reason = describe_failure(error)
        if is_base:
            record.void(claim.trial_id)
            raise CommandError(f"the base itself can't be trained: {reason}") from error
        return record.finish(claim, "failed", reason=reason)


def _watch(stopper: Stopper, claim: Claim, observer: Observer) -> OnEpoch:
    show = observer.on_start(claim.choice)

    def on_epoch(epoch: int, epochs: int, loss: float, score: Callable[[], float]) -> None:
        show(epoch, epochs, loss)
        if is_rung(stopper.name, epoch, epochs):
            accuracy = finite(score())
            if stopper.stops(claim, epoch, accuracy, epochs):
                raise StoppedEarly(accuracy)

    return on_epoch


def finite(accuracy: float) -> float:
    """An accuracy that is a number; anything else is a failure of the candidate's."""
    if not math.isfinite(accuracy):
        raise RuntimeError(f"the score is {accuracy}")
    return accuracy


def describe_failure(error: BaseException) -> str:
    """Why a candidate failed, in one line."""
    kind: Any = type(error)
    return one_line(error) if isinstance(error, RuntimeError) else f"{kind.__name__}: {one_line(error)}"
