"""Which candidates are stopped early: by what was reported, whoever asks and however often."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import TrialState, create_trial

from cp_vision.search.evaluators.pruning import HalvingPruner, first_rung, is_rung, make_pruner

DISTRIBUTION = {"site": CategoricalDistribution(range(40))}


def study_of(curves, pruner):
    """A study whose trials reported these accuracies by epoch, in turn, and what the pruner said to each."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    said = []
    for number, curve in enumerate(curves):
        study.enqueue_trial({"site": number})
        trial = study.ask(DISTRIBUTION)
        stopped = []
        for epoch, accuracy in curve.items():
            trial.report(accuracy, epoch)
            stopped.append(trial.should_prune())
            if stopped[-1]:
                break
        study.tell(trial, state=TrialState.PRUNED if stopped[-1] else TrialState.FAIL)
        said.append(stopped)
    return study, said


CURVES = [{1: 10.0 + (7 * n) % 11, 3: 40.0 + (5 * n) % 13} for n in range(30)]


def test_halving_says_what_optunas_says():
    assert study_of(CURVES, HalvingPruner(1))[1] == study_of(CURVES, SuccessiveHalvingPruner(1, 3))[1]


def test_a_candidate_that_is_begun_again_meets_the_same_decisions():
    study, said = study_of(CURVES, HalvingPruner(1))
    last = study.trials[-1]
    assert True in {stopped[-1] for stopped in said}
    for again in range(2):
        # What its first attempt reported stands in the study.
        trial = create_trial(
            state=TrialState.RUNNING,
            params=last.params,
            distributions=DISTRIBUTION,
            intermediate_values={1: CURVES[-1][1]},
        )
        trial.number = last.number
        assert study.pruner.prune(study, trial) == said[-1][0], again


def test_brackets_share_the_candidates_and_skip_the_first_rungs():
    # Worse from one to the next, so all but the first of a bracket are stopped at its first rung.
    _, said = study_of([{1: 50.0 - n, 3: 50.0 - n} for n in range(40)], make_pruner("hyperband", 9))
    first = [stopped for stopped in said if len(stopped) == 1]
    assert len(first) > 10
    second = [stopped for stopped in said if stopped == [False, True]]
    assert len(second) > 3
    assert any(stopped == [False, False] for stopped in said)


@pytest.mark.parametrize(
    ("name", "epochs", "rungs"),
    [("halving", 9, [1, 3]), ("halving", 10, [2, 6]), ("median", 10, list(range(2, 10))), ("none", 10, [])],
)
def test_rungs(name, epochs, rungs):
    assert [epoch for epoch in range(1, epochs + 1) if is_rung(name, epoch, epochs)] == rungs
    assert not rungs or rungs[0] == first_rung(epochs)
