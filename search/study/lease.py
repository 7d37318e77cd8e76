"""A candidate that a process tries."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState

__all__ = ["MOST_ATTEMPTS", "Lease", "put_back"]

MOST_ATTEMPTS = 5
"""How often a candidate is begun whose process dies before its training has got any further."""


@dataclass(frozen=True)
class Lease:
    """A candidate that this process tries.

    Attributes:
        trial_id: of its trial in the storage.
        choice: what it is.
        attempts: how often it was begun at the point where its training is, this time included.
        began: time by the clock that runs evenly.
        seed: of the training, where it is a further one of a finalist; None for the first score of a candidate.
        progress: where its training was then; see :func:`progress_of`.
        passed: the last epoch after which it was compared with others and went on.
    """

    trial_id: int
    choice: dict[str, Any]
    attempts: int
    began: float
    seed: int | None = None
    progress: tuple[int, int] = (0, 0)
    passed: int = 0


def put_back(storage: BaseStorage, trial_id: int, counted: bool) -> None:
    """Let a candidate be begun again by anybody, unless it was finished meanwhile.

    Args:
        storage: the storage.
        trial_id: of its trial.
        counted: whether this time counts as one of :data:`MOST_ATTEMPTS`.
    """
    with suppress(UpdateFinishedTrialError):
        # Without the mark it would count as one whose process died.
        storage.set_trial_user_attr(trial_id, "here", counted)
        storage.set_trial_state_values(trial_id, TrialState.WAITING)
