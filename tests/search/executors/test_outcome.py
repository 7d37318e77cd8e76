"""What comes of a candidate: the same in every executor."""

import contextlib

import pytest
from fake_evaluator import EndingEvaluator
from optuna.exceptions import OptunaError

from cp_vision import UserError
from cp_vision.recipes.run.checkpoints import save_state
from cp_vision.search import Observer, Search, SearchConfig
from cp_vision.search.evaluators.base import NotKeptError
from cp_vision.search.evaluators.pruning import Pruner
from cp_vision.search.executors.local import run_trials
from cp_vision.search.executors.outcome import Outcome, outcome_of, record_outcome
from cp_vision.search.samplers.queue import NextTrial
from cp_vision.search.study.lease import MOST_ATTEMPTS
from cp_vision.search.study.progress import training_folder
from cp_vision.search.study.trials import TrialStore
from cp_vision.search.study.workers import Worker
from cp_vision.shared.command_line import CommandError

GIVEN_UP = f"its process ended {MOST_ATTEMPTS} times before it got any further"
# How a candidate ends that ends alone: its state and the reason that is recorded.
ALONE = {
    "complete": ("complete", ""),
    "stopped": ("stopped", ""),
    "error": ("failed", "out of memory"),
    "other error": ("failed", "MemoryError: no room"),
    "no number": ("failed", "the score is nan"),
    "no number at first": ("failed", "the score is nan"),
    "died": ("failed", GIVEN_UP),
}
# How the base or another candidate ends the whole search.
WITH_ALL = [
    ("base", "error", CommandError, "out of memory"),
    ("base", "other error", CommandError, "MemoryError: no room"),
    ("base", "died", CommandError, GIVEN_UP),
    ("base", "mistake", UserError, "no such file 'x'"),
    ("other", "mistake", UserError, "no such file 'x'"),
    ("other", "not kept", NotKeptError, "can't write into 'x'"),
]
RAY = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
EXECUTORS = ["local", pytest.param("ray", marks=RAY)]
# Of these one for each kind of outcome: what else is like them is told apart before an executor sees it.
WITH_ALL_ON_RAY = [WITH_ALL[number] for number in (0, 2, 4, 5)]


def test_a_loading_worker_that_the_system_ends_is_no_failure_of_the_candidate():
    def evaluate():
        raise RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed. ")

    outcome = outcome_of(evaluate)
    assert outcome.kind == "died"
    assert "lower workers" in outcome.reason


class FixedQueue:
    """These candidates, one after another."""

    def __init__(self, store, choices):
        self.store, self.choices = store, choices

    def next(self):
        return next((NextTrial(choice) for choice in self.choices if choice not in self.tried()), None)

    def tried(self):
        return [trial.params for trial in self.store.trials]

    def leaders(self):
        return None


@pytest.fixture(params=EXECUTORS)
def executor(request):
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    return request.param


@contextlib.contextmanager
def opened(executor, folder, parallel=1):
    """A search whose candidates are fixed: its config and store, and what lets processes die."""
    own = {} if executor == "local" else {"executor": "ray", "parallel": parallel}
    config = SearchConfig(base="test_vit2", budget="1x", early_stop="halving", output=str(folder / "x"), **own)
    (folder / "x").mkdir(exist_ok=True)
    search = Search(config)
    study, storage = search.open_study()
    with Worker(study, search.output) as worker:
        yield config, TrialStore(study, storage, search.space, worker), lambda: died(study, storage, search)


def died(study, storage, search):
    """Lease what is next in processes that end without a word, until it is given up."""
    for _ in range(MOST_ATTEMPTS):
        with Worker(study, search.output) as worker:
            store = TrialStore(study, storage, search.space, worker)
            yield store
            worker.at_end.clear()


def choices_of(space, count):
    """The base, and others that have a pool, so that they may be stopped early, and drop one block or two."""
    pairs = [[f"blocks.{i}", f"blocks.{j}"] for i in range(2, 8) for j in range(i + 1, 8)]
    made = [space.choice(pools=["blocks.0"], drops=drops) for drops in pairs[:count]]
    return [space.choice(), *made]


def run(executor, config, store, choices, ways, folder):
    """Try candidates in an executor; each ends in the way at its place, those without one are scored."""
    evaluator = EndingEvaluator(
        {store.space.architecture(c).drops: way for c, way in zip(choices, ways, strict=True)}, folder
    )
    queue, ended = FixedQueue(store, choices), []
    if executor == "local":
        run_trials(store, queue, evaluator, evaluator, Pruner(config.early_stop, store), Observer(), ended.append)
    else:
        from cp_vision.search.executors.ray import run_on_ray

        run_on_ray(config, store, queue, evaluator, Observer(), ended.append)
    return ended


def test_what_ends_alone(executor, tmp_path):
    ways = list(ALONE)
    with opened(executor, tmp_path) as (config, store, deaths):
        choices = choices_of(store.space, len(ways))
        ways = ["complete", *ways]
        if executor == "local":
            # Its process is this one.
            place = ways.index("died")
            for dead in deaths():
                assert dead.take_over() or dead.claim(choices[place])
        ended = run(executor, config, store, choices, ways, tmp_path)
        found = {tuple(sorted(store.choice_of(c.number).items())): c for c in store.candidates()}
    assert len(found) == len(choices)
    for choice, way in zip(choices, ways, strict=True):
        candidate = found[tuple(sorted(choice.items()))]
        assert (candidate.state, candidate.reason) == ALONE[way], way
        assert candidate.accuracy == {"complete": 80.0, "stopped": 10.0}.get(way), way
        # What was given up where it was taken over was not tried here.
        assert (candidate in ended) == (way != "died" or executor == "ray")


@pytest.mark.parametrize(
    ("executor", "who", "way", "error", "reason"),
    [
        *(("local", *case) for case in WITH_ALL),
        *(pytest.param("ray", *case, marks=RAY) for case in WITH_ALL_ON_RAY),
    ],
    indirect=["executor"],
)
def test_what_ends_the_search(executor, who, way, error, reason, tmp_path):
    with opened(executor, tmp_path) as (config, store, deaths):
        choices = choices_of(store.space, 2)
        ways = [way if who == "base" else "complete", way if who == "other" else "complete", "complete"]
        if way == "died" and executor == "local":
            for dead in deaths():
                assert dead.take_over() or dead.claim(choices[0])
        with pytest.raises(error) as raised:
            run(executor, config, store, choices, ways, tmp_path)
        assert reason in str(raised.value)
        assert "\n" not in str(raised.value)
        assert isinstance(raised.value, UserError) == (error is UserError)
        assert not any(c.state == "failed" for c in store.candidates())
    # Once it is mended, the search goes on, in any executor.
    with opened("local", tmp_path) as (config, store, _):
        run("local", config, store, choices, ["complete"] * 3, tmp_path)
        assert [c.state for c in store.candidates()] == ["complete"] * 3


@pytest.mark.parametrize("further", [False, True])
def test_a_worker_that_dies_is_given_up_where_it_gets_no_further(further, tmp_path):
    with opened("local", tmp_path) as (_, store, _):
        choice = choices_of(store.space, 1)[1]
        lease = store.claim(choice, here=False)
        for _ in range(MOST_ATTEMPTS - 1):
            assert record_outcome(store, lease, Outcome("died")) is None
            lease = store.take_over(here=False)
        assert lease.attempts == MOST_ATTEMPTS
        if further:
            folder = training_folder(store.worker.output, store.space.architecture(choice))
            folder.mkdir(parents=True)
            save_state({"progress": {"epoch": 0, "update": 1}}, folder)
        candidate = record_outcome(store, lease, Outcome("died"))
        if further:
            assert candidate is None
            assert store.take_over(here=False).attempts == 1
        else:
            assert (candidate.state, candidate.reason) == ("failed", GIVEN_UP)


def test_what_was_compared_and_went_on_is_not_compared_again(executor, tmp_path):
    """Where its process is killed later, others may have set another measure meanwhile."""
    with opened(executor, tmp_path) as (config, store, _):
        pruner, choices = Pruner("halving", store), choices_of(store.space, 4)[1:]
        with Worker(store.study, store.worker.output) as dead:
            lease = TrialStore(store.study, store._storage, store.space, dead).claim(choices[0])
            assert not pruner.stops(lease, 1, 10.0, 9)
            store.let_pass(lease, 1)
            dead.at_end.clear()
        for choice in choices[1:]:
            other = store.claim(choice)
            pruner.stops(other, 1, 60.0, 9)
            store.finish(other, "complete", accuracy=60.0)
        assert pruner.stops(lease, 1, 10.0, 9)
        store.finish(store.claim(store.space.choice()), "complete", accuracy=50.0)
        # After the first of 9 epochs its accuracy would be 10.
        (ended,) = run(executor, config, store, choices[:1], ["stopped"], tmp_path)
        assert ended.state == "complete"


def test_a_study_that_is_away_is_no_fault_of_the_candidate(tmp_path):
    with opened("local", tmp_path) as (config, store, _):
        choices = choices_of(store.space, 1)
        with pytest.raises(OptunaError):
            run("local", config, store, choices, ["complete", "study away"], tmp_path)
        assert [c.state for c in store.candidates()] == ["complete"]


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_what_runs_beside_the_end_of_a_search_ends_too(ray_cluster, tmp_path):
    with opened("ray", tmp_path, parallel=2) as (config, store, _):
        choices = choices_of(store.space, 2)
        with pytest.raises(UserError, match="no such file"):
            run("ray", config, store, choices, ["complete", "long", "mistake beside a long one"], tmp_path)
    assert (tmp_path / "begun").exists()
    assert not (tmp_path / "done").exists()
    with opened("local", tmp_path) as (config, store, _):
        run("local", config, store, choices, ["complete"] * 3, tmp_path)
        assert [c.state for c in store.candidates()] == ["complete"] * 3
        assert {trial.user_attrs["attempts"] for trial in store.trials} == {1}
