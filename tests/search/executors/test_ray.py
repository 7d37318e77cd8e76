"""Searches with a real Ray: the same record, failures, a node that dies, and kills."""

import os
import random
import signal
import threading
from pathlib import Path

import psutil
import pytest
import torch
from fake_evaluator import FakeEvaluator
from search_process import start

from cp_vision import UserError
from cp_vision.recipes import load_recipe
from cp_vision.search import Observer, Search, SearchConfig
from cp_vision.search.study.lease import MOST_ATTEMPTS

ray_constants = pytest.importorskip("ray._private.ray_constants")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
ROOT = Path(__file__).parents[3]
CONFIG = {"base": "test_vit2", "executor": "ray", "parallel": 2, "cpus": 1.0, "trials": 8}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests' / 'helpers'}:{ROOT}")
    # Ray's workers yield to every other process, tests that run beside these among them.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    # What a search sets ends with its test: another finds Ray imported without it.
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)


def config(output, **changes):
    return SearchConfig(**{**CONFIG, "output": str(output), **changes})


def test_a_search_stops_early_and_records_what_fails(tmp_path):
    def before(architecture, call):
        if architecture.drops == ("blocks.7", "blocks.6"):
            raise RuntimeError("never")
        if len(architecture.drops) == 3:
            raise MemoryError("out of memory\nfor good")

    # A sampler that proposes enough of what is not worth its training.
    shared = {"trials": 16, "sampler": "tpe"}
    results = Search(config(tmp_path, **shared)).run(evaluator=FakeEvaluator(before, epochs=9))
    assert results.candidates[0].is_base
    assert len(results.candidates) >= 16
    assert len({(c.pools, c.drops) for c in results.candidates}) == len(results.candidates)
    for c in results.candidates:
        assert (c.state == "failed") == (len(c.drops) == 3)
    reasons = {c.reason for c in results.candidates if c.state == "failed"}
    assert reasons <= {"MemoryError: out of memory for good"}
    assert any(c.state == "stopped" for c in results.candidates)
    assert all(c.params > 0 for c in results.candidates)
    assert not (tmp_path / ".ray").exists() or not any((tmp_path / ".ray").iterdir())
    # Finished: started again it has nothing to do, in any executor.
    again = FakeEvaluator()
    Search(config(tmp_path, **shared, executor="local", parallel=None)).run(evaluator=again)
    assert again.seen == []


def test_real_trainings_give_what_they_give_in_process(tmp_path):
    shared = {
        "budget": "0.8x",
        "model_kwargs": {"patch_size": 16, "depth": 4, "init_values": 1.0},
        "overrides": ("epochs=2", "batch_size=128", "opt=adamw", "lr=0.004"),
        "trials": 5,
    }
    results = Search(config(tmp_path / "ray", **shared)).run()
    assert results.best is not None
    assert (tmp_path / "ray" / "best" / "config.json").exists()
    own = {(c.pools, c.drops): c.accuracy for c in results.candidates if c.state == "complete"}
    # Workers have one thread each, and more would round otherwise.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain = Search(config(tmp_path / "local", **shared, executor="local", parallel=None)).run()
    finally:
        torch.set_num_threads(threads)
    both = [(own[c.pools, c.drops], c.accuracy) for c in plain.candidates if (c.pools, c.drops) in own]
    assert len(both) >= 3
    assert all(one == other for one, other in both)


def test_a_base_that_fails_ends_the_search(tmp_path):
    def before(architecture, call):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="the base itself failed: out of memory"):
        Search(config(tmp_path)).run(evaluator=FakeEvaluator(before))
    results = Search(config(tmp_path)).run(evaluator=FakeEvaluator())
    assert results.candidates[0].state == "complete"


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "no Ray cluster can be reached there"), ("nowhere", "must be HOST:PORT")],
)
def test_an_address_where_no_cluster_is(address, message, tmp_path):
    with pytest.raises(UserError, match=message):
        Search(config(tmp_path / "x", address=address, parallel=None)).run(evaluator=FakeEvaluator())
    assert not any(tmp_path.iterdir())


def test_on_this_machine_alone_nothing_listens_beyond_it(tmp_path):
    process, waiting = start({**CONFIG, "output": str(tmp_path)}, 0.5), threading.Event()
    try:
        while process.is_alive() and not (tmp_path / "pareto.csv").exists():
            waiting.wait(0.05)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        sockets = [found for one in family for found in one.net_connections("tcp") if found.status == "LISTEN"]
        assert sockets
        assert {found.laddr.ip for found in sockets} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    finally:
        process.kill()
        process.join()


class Pids:
    """Notes which process scores, and ends it where it scores this candidate."""

    def __init__(self, folder, deadly=None):
        self.folder, self.deadly = folder, deadly

    def __call__(self, architecture, call):
        with (self.folder / "pids").open("a") as file:
            file.write(f"{os.getpid()} {' '.join(architecture.drops)}\n")
        if architecture.drops == self.deadly:
            os._exit(1)

    def read(self):
        return [line.split(" ", 1) for line in (self.folder / "pids").read_text().splitlines()]


def test_a_worker_dies_that_was_about_to_go_on(tmp_path):
    pids, finished = Pids(tmp_path), []

    class Killer(Observer):
        def on_finish(self, candidate, now):
            # The next candidate is given to this worker, as it is free.
            finished.append(candidate)
            if len(finished) in (2, 4):
                os.kill(int(pids.read()[-1][0]), signal.SIGKILL)

    results = Search(config(tmp_path / "x", parallel=1)).run(Killer(), evaluator=FakeEvaluator(pids))
    assert {c.state for c in results.candidates} == {"complete"}
    assert len({pid for pid, _ in pids.read()}) >= 3


def test_a_candidate_that_kills_its_worker_is_given_up(tmp_path):
    whole = Search(config(tmp_path / "whole", executor="local", parallel=None)).run(evaluator=FakeEvaluator())
    deadly = next(c for c in whole.candidates if c.drops)
    pids = Pids(tmp_path, deadly.drops)
    results = Search(config(tmp_path / "x")).run(evaluator=FakeEvaluator(pids))
    failed = [c for c in results.candidates if c.state != "complete"]
    assert {c.drops for c in failed} == {deadly.drops}
    assert {c.reason for c in failed} == {f"its worker died {MOST_ATTEMPTS} times"}
    assert sum(drops == " ".join(deadly.drops) for _, drops in pids.read()) == MOST_ATTEMPTS * len(failed)
    assert len(results.candidates) >= CONFIG["trials"]


def test_a_node_dies_and_nothing_is_lost(tmp_path):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    try:
        finished = []

        class Killer(Observer):
            def on_finish(self, candidate, now):
                finished.append(candidate)
                if len(finished) == 5:
                    cluster.remove_node(nodes[0], allow_graceful=False)

        results = Search(config(tmp_path, parallel=3, trials=16)).run(Killer(), evaluator=FakeEvaluator(seconds=1.0))
        assert len(results.candidates) >= 16
        assert {c.state for c in results.candidates} == {"complete"}
        assert len({(c.pools, c.drops) for c in results.candidates}) == len(results.candidates)
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def cluster():
    """A cluster of one node, which outlives the searches on it."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_recipe_and_space_are_those_of_the_folder_where_it_was_begun(cluster, tmp_path, monkeypatch):
    # The cluster's workers are in the folder where it was started.
    monkeypatch.chdir(tmp_path)
    settings = ["model=cp_test_vit2", "epochs=1", "warmup_epochs=0", "opt=adamw", "lr=0.004"]
    Path("own.yaml").write_text(load_recipe("digits", settings).to_yaml())
    Path("space.yaml").write_text("drops: ['blocks.[2-5]']")
    shared = {"recipe": "own.yaml", "space": "space.yaml", "budget": "0.9x", "trials": 2, "output": "x"}
    results = Search(config(address=cluster.address, **shared)).run()
    assert {c.state for c in results.candidates} == {"complete"}


def test_killed_again_and_again_it_goes_on(cluster, tmp_path):
    values = {**CONFIG, "address": cluster.address, "output": str(tmp_path / "x"), "trials": 60}
    table, seen = tmp_path / "x" / "pareto.csv", 0
    waiting, rng = threading.Event(), random.Random(3)
    for kill in range(20):
        process = start(values, 0.2)
        if kill % 3 == 0:
            # Once it has finished one more, at some moment of the next; the others on their way there.
            while process.is_alive() and (not table.exists() or len(table.read_text().splitlines()) - 1 <= seen):
                waiting.wait(0.05)
            assert process.is_alive()
        waiting.wait(rng.uniform(0, 3))
        process.kill()
        process.join()
        rows = table.read_text().splitlines()[1:]
        assert len(rows) >= seen
        seen = len(rows)
    assert 7 <= seen < 60
    process = start(values, 0.2)
    process.join()
    assert process.exitcode == 0
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    assert len(rows) >= 60
    assert len({(row[1], row[2]) for row in rows}) == len(rows)
    assert not any("failed" in row for row in rows)
    assert not any((tmp_path / "x" / ".ray").iterdir())
