"""Which sites and settings the accuracy depends on, by Optuna's importances."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from ..study.trials import TrialStore

__all__ = ["site_importance"]

_LEAST_TRIALS = 8


def site_importance(record: TrialStore) -> dict[str, float]:
    """Share of the differences in accuracy that goes back to each site or setting, the largest first.

    By PED-ANOVA (Watanabe et al., 2023, arXiv 2304.10255) over the candidates that were scored; empty with fewer
    than eight, or where all are equal.
    """
    scored = [trial for trial in record.finished if trial.state == TrialState.COMPLETE]
    if len(scored) < _LEAST_TRIALS:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            create_trial(
                params=trial.params, distributions=trial.distributions, value=trial.user_attrs["result"]["accuracy"]
            )
            for trial in scored
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Target and region quantiles")
        try:
            found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        except (OptunaError, RuntimeError, ValueError):
            # All equal, or nothing was varied: nothing matters more than anything else.
            return {}
    total = sum(found.values())
    return {name: value / total for name, value in found.items() if value > 0} if total > 0 else {}
