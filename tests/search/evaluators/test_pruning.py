"""Which candidates are stopped early: by what was reported, whoever asks and however often."""

import math
import random

import optuna
import pytest
from fake_evaluator import journal
from optuna.distributions import CategoricalDistribution
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import TrialState, create_trial

from cp_vision.search import Observer, Search, SearchConfig
from cp_vision.search.evaluators.base import Score
from cp_vision.search.evaluators.pruning import HalvingPruner, Pruner, first_rung, is_rung, make_pruner
from cp_vision.search.executors.local import run_trials

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


class Curves:
    """Trainings of 30 epochs that rise to a true accuracy, by the same curve for all."""

    def __init__(self, truth):
        self.truth = truth

    def __call__(self, architecture, img_size, on_epoch, seed=None):
        accuracy = self.truth(architecture)
        for epoch in range(1, 31):
            on_epoch(epoch, 30, 0.0, lambda epoch=epoch: accuracy * (1 - 0.5 ** (epoch / 3)))
        return Score(accuracy, params=1)


def searched(folder, truth, **values):
    """The candidates of a search by such trainings, and its winner."""
    values = {"model_kwargs": {"patch_size": 8}, "storage": journal(folder), **values}
    config = SearchConfig(base="test_vit2", output=folder, **values)
    search, curves = Search(config), Curves(truth)
    with search._opened() as store:
        queue = search._queue(store, repeats=False)
        run_trials(store, queue, curves, curves, Pruner(config.early_stop, store), Observer(), lambda candidate: None)
        return store.candidates(), queue.leaders().best


@pytest.mark.slow
def test_candidates_of_equal_merit_are_stopped_equally_often_whether_they_pool_or_not(tmp_path):
    """Accuracies are drawn whatever the candidate is, but for the base, which is by far the worst."""
    rng, drawn = random.Random(0), {}

    def luck(architecture):
        if not architecture.pools and not architecture.drops:
            return 10.0
        return drawn.setdefault(architecture.to_json(), rng.uniform(60, 80))

    # Random candidates within this budget, a part of which pools.
    space = {"max_pools": 1, "pools": ["blocks.[0-2]"]}
    values = {"sampler": "random", "trials": 120, "budget": "0.7x", "space": space}
    candidates, _ = searched(tmp_path / "x", luck, **values)
    assert candidates[0].state == "complete"
    shares, sizes = [], []
    for pooled in (True, False):
        among = [c for c in candidates[1:] if bool(c.pools) == pooled]
        shares.append(sum(c.state == "stopped" for c in among) / len(among))
        sizes.append(len(among))
    assert min(sizes) > 25
    assert min(shares) > 0.3
    # Two standard errors.
    assert abs(shares[0] - shares[1]) < 2 * math.sqrt(0.25 / sizes[0] + 0.25 / sizes[1])


def test_what_costs_about_the_same_is_compared(tmp_path):
    """The less a candidate costs the worse it is, and still none is stopped for that."""

    def depth(architecture):
        return 80.0 - 8 * len(architecture.drops)

    space = {"pools": [], "drops": ["blocks.[0-7]"]}
    candidates, _ = searched(tmp_path / "x", depth, sampler="random", trials=40, budget="0.95x", space=space)
    assert {c.state for c in candidates} == {"complete"}
    assert len({len(c.drops) for c in candidates}) > 4


@pytest.mark.slow
def test_the_winner_is_as_good_as_without_stopping(tmp_path):
    """Where three pools truly help: the sampler learns from those that were stopped, too."""
    names, stopped = [f"blocks.{i}" for i in range(12)], 0
    for seed in range(3):
        rng = random.Random(seed)
        losses, helpful = {name: rng.uniform(0.2, 1.5) for name in names}, set(rng.sample(names[:-1], 3))

        def truth(architecture, losses=losses, helpful=helpful):
            lost = sum(losses[name] for name in architecture.drops)
            return 80 - lost - lost**2 / 12 + 0.3 * len(helpful.intersection(architecture.pools))

        best = {}
        for stop in ("none", "halving"):
            values = {"early_stop": stop, "seed": seed, "model_kwargs": {"patch_size": 8, "depth": 12}}
            candidates, winner = searched(tmp_path / f"{stop}{seed}", truth, trials=30, budget="0.7x", **values)
            best[stop] = winner.accuracy
        stopped += sum(c.state == "stopped" for c in candidates)
        assert best["halving"] > best["none"] - 0.1, seed
    assert stopped > 24
