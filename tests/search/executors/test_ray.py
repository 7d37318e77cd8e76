"""Searches with a real Ray: the same study, failures, a node that dies, kills, and what is refused before it starts."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from fake_evaluator import FakeEvaluator
from search_process import kill_at, start

from cp_vision import UserError
from cp_vision.recipes import load_recipe
from cp_vision.search import Observer, Search, SearchConfig
from cp_vision.search.executors.ray_cluster import how_many_fit, on_cluster, wanted_resources
from cp_vision.search.study.lease import MOST_ATTEMPTS
from cp_vision.search.study.progress import progress_of
from cp_vision.shared.command_line import CommandError

CONFIG = {"base": "test_vit2", "executor": "ray", "parallel": 2, "cpus": 1.0, "trials": 8}


def real(test):
    """A test that starts Ray; those of one process share one."""
    return pytest.mark.slow(pytest.mark.xdist_group("ray")(pytest.mark.usefixtures("ray_cluster")(test)))


def config(output, **changes):
    return SearchConfig(**{**CONFIG, "output": str(output), **changes})


NODES = [{"CPU": 16.0, "GPU": 2.0, "slot": 1.0}, {"CPU": 3.0}]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"CPU": 1.0}, 19),
        ({"CPU": 2.0}, 9),
        ({"CPU": 0.5}, 38),
        ({"CPU": 4.0, "GPU": 1.0}, 2),
        ({"GPU": 0.25}, 8),
        ({"CPU": 1.0, "slot": 0.5}, 2),
    ],
)
def test_how_many_candidates_fit(wanted, count):
    assert how_many_fit(wanted, NODES) == count


@pytest.mark.parametrize(
    ("wanted", "nodes", "named"),
    [
        ({"CPU": 1.0, "GPU": 1.0}, [{"CPU": 2.0}], ["gpus 1", "0"]),
        # All nodes have them together, and no node alone.
        ({"CPU": 17.0}, NODES, ["cpus 17", "16"]),
        ({"GPU": 1.0, "disk": 2.0}, NODES, ["'disk' 2", "0"]),
        ({"CPU": 3.0, "slot": 1.0}, [{"CPU": 3.0}, {"slot": 1.0}], ["3 CPU", "1 slot"]),
        ({"CPU": 1.0}, [], ["cpus 1", "0"]),
    ],
)
def test_what_no_node_has_is_refused(wanted, nodes, named):
    with pytest.raises(UserError) as raised:
        how_many_fit(wanted, nodes)
    assert all(word in str(raised.value) for word in named)


@pytest.mark.parametrize("wrong", [{"gpus": 1.5}, {"cpus": 0.0, "gpus": 0.0}])
def test_what_cannot_be_asked_for(wrong, tmp_path):
    with pytest.raises(UserError, match=f"gpus {wrong['gpus']}"):
        wanted_resources(config(tmp_path, **wrong))


def test_where_ray_does_not_start_its_disk_may_be_full(tmp_path, monkeypatch):
    """What a real one raises on a full disk, after forty seconds."""

    def init(**options):
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, is_initialized=lambda: False))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with (
        pytest.raises(CommandError, match=f"timed out during startup.*RAY_TMPDIR.*{tmp_path}.* MiB left"),
        on_cluster(config(tmp_path)),
    ):
        pass


def run_code(code, *arguments):
    """Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)


SEARCH = "import sys; from cp_vision.search.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "options", "named"),
    [
        pytest.param(
            "",
            ("--gpus", "1"),
            "gpus 1",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        ("", ("--cpus", str(os.cpu_count() + 1)), f"cpus {os.cpu_count() + 1}"),
        ("import sys; sys.modules['ray'] = None; ", (), "pip install"),
        ("import ray; ", (), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"),
    ],
)
def test_what_ray_cannot_do_is_one_line_before_anything_is_written(before, options, named, tmp_path):
    if before == "import ray; ":
        address = run_code("import ray; print(ray.util.get_node_ip_address())").stdout.strip()
        if address.startswith("127."):
            pytest.skip("this machine has no address that others see")
    output = tmp_path / "x"
    done = run_code(before + SEARCH, "test_vit2", "--executor", "ray", "--output", str(output), *options)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert named in lines[0]
    assert not output.exists()


@real
def test_a_search_stops_early_and_records_what_fails(tmp_path):
    def before(architecture, call):
        if architecture.drops == ("blocks.7", "blocks.6"):
            raise RuntimeError("never")
        if architecture.drops == ("blocks.7",):
            raise MemoryError("out of memory\nfor good")

    # A sampler that proposes enough of what is not worth its training.
    shared = {"trials": 16, "sampler": "random", "early_stop": "halving", "budget": "2x", "space": {"max_drops": 1}}
    results = Search(config(tmp_path, **shared)).run(evaluator=FakeEvaluator(before, epochs=9))
    assert results.candidates[0].is_base
    assert len(results.candidates) >= 16
    assert len({(c.pools, c.drops) for c in results.candidates}) == len(results.candidates)
    for c in results.candidates:
        assert (c.state == "failed") == (c.drops == ("blocks.7",))
    reasons = {c.reason for c in results.candidates if c.state == "failed"}
    assert reasons == {"MemoryError: out of memory for good"}
    assert any(c.state == "stopped" for c in results.candidates)
    assert all(c.params > 0 for c in results.candidates)
    assert not (tmp_path / ".ray").exists() or not any((tmp_path / ".ray").iterdir())
    # Finished: started again it has nothing to do, in any executor.
    again = FakeEvaluator()
    Search(config(tmp_path, **shared, executor="local", parallel=None)).run(evaluator=again)
    assert again.seen == []


@real
def test_real_trainings_give_what_they_give_in_process(tmp_path):
    shared = {
        "budget": "0.8x",
        "model_kwargs": {"patch_size": 16, "depth": 4, "init_values": 1.0},
        "overrides": ("epochs=2", "batch_size=128", "opt=adamw", "lr=0.004"),
        "trials": 5,
        "finalists": 1,
        "seeds": 2,
    }
    results = Search(config(tmp_path / "ray", **shared)).run()
    assert results.best is not None
    assert (tmp_path / "ray" / "best" / "config.json").exists()
    assert results.candidates[0].by_seed.keys() == {0, 1}
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
    assert results.candidates[0].by_seed == plain.candidates[0].by_seed


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "no Ray cluster can be reached there"), ("nowhere", "must be HOST:PORT")],
)
def test_an_address_where_no_cluster_is(address, message, tmp_path):
    with pytest.raises(UserError, match=message):
        Search(config(tmp_path / "x", address=address, parallel=None)).run(evaluator=FakeEvaluator())
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("search_environment")
def test_on_this_machine_alone_nothing_listens_beyond_it(tmp_path):
    process, waiting = start({**CONFIG, "output": str(tmp_path), "trials": 3}, 0.5), threading.Event()
    try:
        while process.is_alive() and not (tmp_path / "pareto.csv").exists():
            waiting.wait(0.05)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        sockets = [found for one in family for found in one.net_connections("tcp") if found.status == "LISTEN"]
        assert sockets
        assert {found.laddr.ip for found in sockets} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        process.join(120)
        assert process.exitcode == 0
        assert len((tmp_path / "pareto.csv").read_text().splitlines()) > 3
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


@real
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


@real
def test_a_candidate_that_kills_its_worker_is_given_up(tmp_path):
    whole = Search(config(tmp_path / "whole", executor="local", parallel=None)).run(evaluator=FakeEvaluator())
    deadly = next(c for c in whole.candidates if c.drops)
    pids = Pids(tmp_path, deadly.drops)
    results = Search(config(tmp_path / "x")).run(evaluator=FakeEvaluator(pids))
    failed = [c for c in results.candidates if c.state != "complete"]
    assert {c.drops for c in failed} == {deadly.drops}
    assert {c.reason for c in failed} == {f"its process ended {MOST_ATTEMPTS} times before it got any further"}
    assert sum(drops == " ".join(deadly.drops) for _, drops in pids.read()) == MOST_ATTEMPTS * len(failed)
    assert len(results.candidates) >= CONFIG["trials"]


class KilledOnce:
    """Trains the base by the recipe, in a worker that is killed before its sixth update, and notes where it begins."""

    def __init__(self, values, folder):
        self.values, self.folder = values, folder

    def __call__(self, architecture, img_size, on_epoch):
        search = Search(SearchConfig(**self.values))
        begun = self.folder / "begun"
        if not begun.exists():
            kill_at(6)
        with begun.open("a") as file:
            file.write(f"{progress_of(search.output, architecture)} {os.getpid()}\n")
        return search.trainer(architecture, img_size, on_epoch)


@real
def test_a_training_goes_on_in_another_worker(tmp_path):
    overrides = ("epochs=2", "batch_size=128", "opt=adamw", "lr=0.004")
    values = {**CONFIG, "overrides": overrides, "trials": 1, "budget": "1x", "output": str(tmp_path / "x")}
    results = Search(SearchConfig(**values)).run(evaluator=KilledOnce(values, tmp_path))
    (first, one), (second, other) = (line.rsplit(" ", 1) for line in (tmp_path / "begun").read_text().splitlines())
    assert one != other
    assert (first, second[:4]) == ("(0, 0)", "(0, ")
    assert second != first
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = Search(SearchConfig(**{**values, "output": str(tmp_path / "whole")}))
        assert whole.trainer(whole.space.base, None, lambda *_: None).accuracy == results.candidates[0].accuracy
    finally:
        torch.set_num_threads(threads)
    assert not (tmp_path / "x" / ".training").exists()


@real
def test_a_node_dies_and_nothing_is_lost(ray_cluster, tmp_path):
    node = ray_cluster.add_node(num_cpus=1)
    finished = []

    class Killer(Observer):
        def on_finish(self, candidate, now):
            finished.append(candidate)
            if len(finished) == 5:
                ray_cluster.remove_node(node, allow_graceful=False)

    try:
        results = Search(config(tmp_path, parallel=3, trials=16)).run(Killer(), evaluator=FakeEvaluator(seconds=1.0))
    finally:
        if len(finished) < 5:
            ray_cluster.remove_node(node)
    assert len(results.candidates) >= 16
    assert {c.state for c in results.candidates} == {"complete"}
    assert len({(c.pools, c.drops) for c in results.candidates}) == len(results.candidates)


@real
def test_a_resource_of_one_node_is_asked_for(ray_cluster, tmp_path):
    node = ray_cluster.add_node(num_cpus=1, resources={"slot": 2})
    try:
        shared = {"parallel": None, "trials": 3, "cpus": 0.5}
        results = Search(config(tmp_path, resources={"slot": 1.5}, **shared)).run(evaluator=FakeEvaluator())
        assert {c.state for c in results.candidates} == {"complete"}
        with pytest.raises(UserError, match="'slot' 3"):
            Search(config(tmp_path / "more", resources={"slot": 3}, **shared)).run(evaluator=FakeEvaluator())
        assert not (tmp_path / "more").exists()
    finally:
        ray_cluster.remove_node(node)


@real
def test_recipe_and_space_are_those_of_the_folder_where_it_was_begun(tmp_path, monkeypatch):
    # The cluster's workers are in the folder where it was started.
    monkeypatch.chdir(tmp_path)
    settings = ["model=cp_test_vit2", "epochs=1", "warmup_epochs=0", "opt=adamw", "lr=0.004"]
    Path("own.yaml").write_text(load_recipe("digits", settings).to_yaml())
    Path("space.yaml").write_text("drops: ['blocks.[2-5]']")
    shared = {"recipe": "own.yaml", "space": "space.yaml", "budget": "0.9x", "trials": 2, "seeds": 1, "output": "x"}
    results = Search(config(**shared)).run()
    assert {c.state for c in results.candidates} == {"complete"}


@real
def test_killed_again_and_again_it_goes_on(ray_cluster, tmp_path):
    values = {**CONFIG, "address": ray_cluster.address, "output": str(tmp_path / "x"), "trials": 24}
    table, seen = tmp_path / "x" / "pareto.csv", 0
    waiting, rng = threading.Event(), random.Random(3)
    for kill in range(9):
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
    assert 3 <= seen < 24
    process = start(values, 0.2)
    process.join()
    assert process.exitcode == 0
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    assert len(rows) >= 24
    assert len({(row[1], row[2]) for row in rows}) == len(rows)
    assert not any("failed" in row for row in rows)
    assert not any((tmp_path / "x" / ".ray").iterdir())
