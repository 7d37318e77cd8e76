"""How well two scores of the same candidates agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import kendalltau

__all__ = ["kendall_tau"]


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float | None:
    """How well two scores agree on the order of candidates, from -1 to 1 (tau-b, which allows for ties).

    Args:
        pairs: both scores of each candidate.

    Returns:
        Kendall's tau, or None where there is none: fewer than two candidates, or scores that are all the same.
    """
    if len(pairs) < 2:
        return None
    tau = float(kendalltau(*zip(*pairs, strict=True)).statistic)
    return tau if math.isfinite(tau) else None
