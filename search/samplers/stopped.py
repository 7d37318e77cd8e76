"""What a candidate that was stopped early would have reached: its accuracy is censored, and not the worst."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState

__all__ = ["expected_accuracy"]


def expected_accuracy(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> float | None:
    """The accuracy of a stopped candidate at its last epoch, and what others gained from that epoch on, in the mean.

    Args:
        trial: the candidate.
        trials: of the study, all of them.

    Returns:
        Percent; None where it wasn't stopped, or no finished one was compared at its last epoch.
    """
    if trial.state != TrialState.PRUNED or trial.last_step is None:
        return None
    epoch = trial.last_step
    gains = [
        other.values[0] - other.intermediate_values[epoch]
        for other in trials
        if other.state == TrialState.COMPLETE and epoch in other.intermediate_values
    ]
    return trial.intermediate_values[epoch] + fmean(gains) if gains else None
