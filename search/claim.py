"""A candidate that a process tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["MOST_ATTEMPTS", "Claim"]

MOST_ATTEMPTS = 5
"""How often a candidate is begun whose process ends before it does."""


@dataclass(frozen=True)
class Claim:
    """A candidate that this process tries.

    Attributes:
        trial_id: of its trial in the storage.
        choice: what it is.
        attempts: how often it was begun, this time included.
        began: time by the clock that runs evenly.
    """

    trial_id: int
    choice: dict[str, Any]
    attempts: int
    began: float
