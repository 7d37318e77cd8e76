"""What comes of a candidate, by the same rules in this process and under Ray."""

from __future__ import annotations

import math
from typing import Any

from cp_vision.shared.errors import one_line

__all__ = ["describe_failure", "finite"]


def finite(accuracy: float) -> float:
    """An accuracy that is a number; anything else is a failure of the candidate's."""
    if not math.isfinite(accuracy):
        raise RuntimeError(f"the score is {accuracy}")
    return accuracy


def describe_failure(error: BaseException) -> str:
    """Why a candidate failed, in one line."""
    kind: Any = type(error)
    return one_line(error) if isinstance(error, RuntimeError) else f"{kind.__name__}: {one_line(error)}"
