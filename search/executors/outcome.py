"""What comes of a candidate: one set of rules for every executor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from optuna.exceptions import OptunaError

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line

from ...recipes.data.failures import is_killed_worker, reason_of
from ..evaluators.base import NotKeptError, Score, StoppedEarly
from ..study.lease import MOST_ATTEMPTS, Lease
from ..study.trials import TrialStore
from ..types import Candidate

__all__ = ["Outcome", "describe_failure", "finite", "outcome_of", "record_outcome"]


@dataclass(frozen=True)
class Outcome:
    """How the trial of a candidate ended.

    Attributes:
        kind: ``complete``, ``stopped`` (early) and ``failed`` are recorded. ``mistake`` (of the user's) and
            ``not kept`` (its weights can't be written) end the search. ``died``: so did the process that ran it.
        accuracy: validation top-1 in percent; None where there is none.
        params: number of parameters.
        reason: why it failed, or why the search ends, in one line.
        cause: the exception behind it, where it was raised in this process.
    """

    kind: Literal["complete", "stopped", "failed", "mistake", "not kept", "died"]
    accuracy: float | None = None
    params: int = 0
    reason: str = ""
    cause: Exception | None = None


def outcome_of(evaluate: Callable[[], Score]) -> Outcome:
    """Evaluate a candidate, and say how that ended.

    Raises:
        OptunaError: the study can't be read or written, which is no fault of the candidate's.
    """
    try:
        score = evaluate()
        return Outcome("complete", finite(score.accuracy), score.params)
    except StoppedEarly as stop:
        return Outcome("stopped", stop.accuracy)
    except UserError as error:
        return Outcome("mistake", reason=str(error), cause=error)
    except NotKeptError as error:
        return Outcome("not kept", reason=str(error), cause=error)
    except OptunaError:
        raise
    except Exception as error:
        if is_killed_worker(error):
            # The machine's fault: it is tried again, as after the end of the whole process.
            return Outcome("died", reason=reason_of(error), cause=error)
        # Out of memory or time, a loss that is not finite, images that can't be read: the search goes on without it.
        return Outcome("failed", reason=describe_failure(error), cause=error)


def record_outcome(store: TrialStore, lease: Lease, outcome: Outcome) -> Candidate | None:
    """Write what came of a candidate; None where its process died and it is begun again.

    Raises:
        UserError: it met a mistake of the user's.
        CommandError: its weights can't be written, or it is the base, which everything is compared with, and failed.
    """
    kind, reason = outcome.kind, outcome.reason
    if kind == "died":
        if lease.attempts < MOST_ATTEMPTS or store.got_further(lease):
            store.hand_back(lease)
            return None
        ended = f"its process ended {MOST_ATTEMPTS} times before it got any further"
        kind, reason = "failed", f"{reason}; tried {MOST_ATTEMPTS} times" if reason else ended
    first = lease.seed is None or lease.seed == store.seed
    if kind == "failed" and first and lease.choice == store.space.choice():
        store.undo(lease)
        raise CommandError(f"the base itself can't be trained: {reason}") from outcome.cause
    if kind == "mistake" or kind == "not kept":
        store.undo(lease)
        raise (UserError if kind == "mistake" else NotKeptError)(reason) from outcome.cause
    return store.finish(lease, kind, accuracy=outcome.accuracy, params=outcome.params, reason=reason)


def finite(accuracy: float) -> float:
    """An accuracy that is a number; anything else is a failure of the candidate's."""
    if not math.isfinite(accuracy):
        raise RuntimeError(f"the score is {accuracy}")
    return accuracy


def describe_failure(error: BaseException) -> str:
    """Why a candidate failed, in one line."""
    kind: Any = type(error)
    return one_line(error) if isinstance(error, RuntimeError) else f"{kind.__name__}: {one_line(error)}"
