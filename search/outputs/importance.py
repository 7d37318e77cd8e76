"""Which sites and settings the accuracy depends on, by Optuna's importances."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from ..study.trials import TrialStore

__all__ = ["site_importance"]

_LEAST_TRIALS = 8


def site_importance(store: TrialStore) -> dict[str, float]:
    """Share of the differences in accuracy that goes back to each site or setting, the largest first.

    By PED-ANOVA (Watanabe et al., 2023, arXiv 2304.10255) over the candidates that were scored; empty with fewer
    than eight, or where all are equal.
    """
    scored = [trial for trial in store.finished if trial.state == TrialState.COMPLETE]
    if len(scored) < _LEAST_TRIALS:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Target and region quantiles")
        try:
            found = get_param_importances(store.study, evaluator=PedAnovaImportanceEvaluator())
        except (OptunaError, RuntimeError, ValueError):
            # All equal, or nothing was varied: nothing matters more than anything else.
            return {}
    total = sum(found.values())
    return {name: value / total for name, value in found.items() if value > 0} if total > 0 else {}
