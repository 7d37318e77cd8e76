"""A search whose processes are killed, or share one study: nothing is lost, and nothing is done twice."""

import csv
import random
import shlex
import shutil
import signal
import threading
import time
from pathlib import Path

import optuna
import pytest
import torch
from fake_evaluator import FakeEvaluator, journal
from search_process import start as start_search

from cp_vision.recipes import load_recipe
from cp_vision.recipes.run.checkpoints import save_state
from cp_vision.search import Search, SearchConfig
from cp_vision.search.cli.main import main
from cp_vision.search.config.addresses import hide_password
from cp_vision.search.config.files import load_config
from cp_vision.search.selection import pareto_front
from cp_vision.search.study.database import StudyDatabase
from cp_vision.search.study.lease import MOST_ATTEMPTS
from cp_vision.search.study.progress import training_folder
from cp_vision.search.study.trials import TrialStore
from cp_vision.search.study.workers import Worker

GIVEN_UP = f"its process ended {MOST_ATTEMPTS} times before it got any further"
CONFIG = {"base": "test_vit2", "pool_options": {"support_range": 0.25}}


def config(output, **changes):
    return SearchConfig(**{**CONFIG, "output": str(output), "trials": 12, **changes})


def start(output, seconds=0.0, deadly=None, **changes):
    """The same search as a process of its own."""
    return start_search({**CONFIG, "output": str(output), "trials": 12, **changes}, seconds, deadly)


def ends_well(process, seconds):
    process.join(seconds)
    assert process.exitcode == 0


def table(folder, *, but=("seconds",)):
    with (folder / "pareto.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in but} for row in csv.DictReader(file)]


def candidates(folder):
    return sorted((row["pools"], row["drops"], row["accuracy"], row["state"]) for row in table(folder))


STORAGES = {
    "file": lambda folder: None,
    "journal": lambda folder: f"journal:{folder / 'study.log'}",
    "address": lambda folder: f"sqlite:///{folder / 'shared.db'}",
}


def test_every_storage_holds_the_same_study_and_goes_on(tmp_path):
    def interrupt(architecture, call):
        if call == 5:
            raise KeyboardInterrupt

    plain = Search(config(tmp_path / "plain", trials=9)).run(evaluator=FakeEvaluator())
    for storage, address_in in STORAGES.items():
        folder = tmp_path / storage
        folder.mkdir()
        again = config(folder / "x", storage=address_in(folder), trials=9)
        Search(again)
        assert not any(folder.iterdir())
        with pytest.raises(KeyboardInterrupt):
            Search(again).run(evaluator=FakeEvaluator(interrupt))
        results = Search(again).run(evaluator=FakeEvaluator())
        key = [(c.number, c.pools, c.drops, c.accuracy) for c in results.candidates]
        assert key == [(c.number, c.pools, c.drops, c.accuracy) for c in plain.candidates], storage
        assert (folder / "x" / "study.db").exists() == (storage == "file")


@pytest.mark.parametrize(
    ("storage", "names_weights"),
    [("journal:s.log", "override"), ("journal://s.log", "override"), ("sqlite:///s.db?timeout=9", "recipe")],
)
def test_from_any_folder_it_is_the_same_study(storage, names_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = Search(config("run"))
    torch.save(first.trainer.build(first.space.base).state_dict(), "w.pth")
    Path("teacher").mkdir()
    files = {"initial_checkpoint": "w.pth", "kd_model_name": "local-dir:teacher"}
    Path("own.yaml").write_text(load_recipe("digits").with_values(**files).to_yaml())
    overrides = (*(f"{key}={value}" for key, value in files.items()), "epochs=3")
    named = {"override": {"overrides": overrides}, "recipe": {"recipe": "own.yaml"}}
    begun = config("run", storage=storage, trials=3, **named[names_weights])
    count = len(Search(begun).run(evaluator=FakeEvaluator()).candidates)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    fake, again = FakeEvaluator(), Search(load_config(tmp_path / "run"))
    assert len(again.run(evaluator=fake).candidates) == count
    assert fake.seen == []
    again.trainer.build(again.space.base)
    assert again.recipe.kd_model_name == f"local-dir:{tmp_path / 'teacher'}"
    assert main(["status", str(tmp_path / "run")]) == 0
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path):
    processes = [start(tmp_path / "shared", 0.05, trials=20) for _ in range(2)]
    for process in processes:
        ends_well(process, 120)
    rows = candidates(tmp_path / "shared")
    assert len(rows) >= 20
    assert len({row[:2] for row in rows}) == len(rows)
    study = optuna.load_study(storage=f"sqlite:///{tmp_path / 'shared' / 'study.db'}", study_name="cp-search")
    owners = {trial.user_attrs["owner"] for trial in study.trials}
    assert len(owners) == 2
    assert not any((tmp_path / "shared" / ".workers").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_twenty_kills_in_a_row_lose_nothing(count, tmp_path):
    rng = random.Random(3)
    folder, known = tmp_path / "killed", []
    for _ in range(20):
        processes = [start(folder, 0.02, trials=60) for _ in range(count)]
        # From the moment on that the study is there, else the set-up alone would be killed.
        waiting = threading.Event()
        while any(p.is_alive() for p in processes) and not list((folder / ".workers").glob("*")):
            waiting.wait(0.01)
        waiting.wait(rng.uniform(0, 0.3))
        for process in processes:
            process.kill()
            process.join()
        if (folder / "study.db").exists():
            study = optuna.load_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="cp-search")
            finished = [
                t.user_attrs["architecture"] for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE
            ]
            # What was finished before is finished still.
            assert set(known) <= set(finished)
            known = finished
    ends_well(start(folder, trials=60), 300)
    rows = table(folder)
    assert len(rows) >= 60
    assert len({(row["pools"], row["drops"]) for row in rows}) == len(rows)
    assert {row["state"] for row in rows} <= {"complete", "stopped"}
    if count == 1:
        # In one process the end is that of a search that was never killed.
        Search(config(tmp_path / "whole", trials=60)).run(evaluator=FakeEvaluator(epochs=9))
        assert rows == table(tmp_path / "whole")


@pytest.mark.slow
def test_a_candidate_that_kills_its_process_is_given_up(tmp_path):
    whole = Search(config(tmp_path / "whole", trials=6)).run(evaluator=FakeEvaluator())
    deadly = next(c for c in whole.candidates if c.drops and not c.is_base)
    for attempt in range(MOST_ATTEMPTS):
        process = start(tmp_path / "x", trials=6, deadly=list(deadly.drops))
        process.join(120)
        assert process.exitcode == -signal.SIGABRT, attempt
    ends_well(start(tmp_path / "x", trials=6, deadly=list(deadly.drops)), 120)
    failed = [row for row in table(tmp_path / "x") if row["state"] == "failed"]
    assert [row["drops"] for row in failed] == [" ".join(deadly.drops)]
    assert failed[0]["reason"] == GIVEN_UP


@pytest.mark.parametrize(
    ("states", "attempts"),
    [
        ([None] * 4, 5),
        ([None] * 5, None),
        ([(0, 1), (0, 2), (0, 9), (1, 0), (1, 0), (2, 7), (3, 1)], 1),
        ([(0, 3)] * 5, 5),
        ([(0, 3)] * 6, None),
        # A state that was lost is no way on.
        ([(2, 3), None, None, None, None], 5),
    ],
)
def test_only_kills_count_after_which_a_training_has_got_no_further(states, attempts, tmp_path):
    search = Search(config(tmp_path))
    study, storage = search.open_study()
    choice = search.space.choice(drops=["blocks.3"])
    folder = training_folder(tmp_path, search.space.architecture(choice))
    for state in states:
        with Worker(study, tmp_path) as worker:
            store = TrialStore(study, storage, search.space, worker)
            assert store.take_over() or store.claim(choice)
            shutil.rmtree(folder, ignore_errors=True)
            if state is not None:
                folder.mkdir(parents=True)
                save_state({"progress": dict(zip(("epoch", "update"), state, strict=True))}, folder)
            worker.at_end.clear()
    with Worker(study, tmp_path) as worker:
        store = TrialStore(study, storage, search.space, worker)
        lease = store.take_over()
        if attempts is None:
            assert lease is None
            (candidate,) = store.candidates()
            assert (candidate.state, candidate.reason) == ("failed", GIVEN_UP)
        else:
            assert lease.attempts == attempts


def test_of_two_claims_of_one_candidate_the_first_counts(tmp_path):
    search = Search(config(tmp_path))
    study, storage = search.open_study()
    with Worker(study, tmp_path) as one, Worker(study, tmp_path) as two:
        records = [TrialStore(study, storage, search.space, worker) for worker in (one, two)]
        choice = search.space.choice(drops=["blocks.3"])
        base = records[0].claim(search.space.choice())
        first, second = records[0].claim(choice), records[1].claim(choice)
        assert first is not None
        assert second is None
        # Whoever lives keeps what it claimed.
        assert records[1].take_over() is None
        records[0].finish(base, "complete", accuracy=50.0, params=1)
        records[0].finish(first, "complete", accuracy=60.0, params=1)
        records[1].sync()
        assert [c.accuracy for c in records[1].candidates()] == [50.0, 60.0]


def test_ctrl_c_is_no_fault_of_the_candidate_that_it_meets(tmp_path):
    def interrupt(architecture, call):
        if architecture.drops:
            raise KeyboardInterrupt

    for _ in range(MOST_ATTEMPTS + 1):
        with pytest.raises(KeyboardInterrupt):
            Search(config(tmp_path, trials=4)).run(evaluator=FakeEvaluator(interrupt))
    results = Search(config(tmp_path, trials=4)).run(evaluator=FakeEvaluator())
    assert {c.state for c in results.candidates} == {"complete"}


def test_what_another_process_took_over_is_not_put_back(tmp_path):
    search = Search(config(tmp_path))
    study, storage = search.open_study()
    with Worker(study, tmp_path) as silent:
        lease = TrialStore(study, storage, search.space, silent).claim(search.space.choice())
        storage.set_trial_user_attr(lease.trial_id, "owner", "gpu-7-4711-abcdef")
    assert storage.get_trial(lease.trial_id).state == optuna.trial.TrialState.RUNNING


@pytest.mark.parametrize(("killed", "attempts"), [(True, 2), (False, 1)])
def test_what_a_dead_process_ran_is_taken_over_once(killed, attempts, tmp_path):
    search = Search(config(tmp_path))
    study, storage = search.open_study()
    with Worker(study, tmp_path) as dead:
        TrialStore(study, storage, search.space, dead).claim(search.space.choice())
        if killed:
            # Nothing is done then before the others hear of it.
            dead.at_end.clear()
    with Worker(study, tmp_path) as one, Worker(study, tmp_path) as two:
        records = [TrialStore(study, storage, search.space, worker) for worker in (one, two)]
        claims = [record.take_over() for record in records]
        assert [lease is not None for lease in claims] == [True, False]
        assert claims[0].attempts == attempts


def test_what_is_handed_back_is_begun_again_by_anybody(tmp_path):
    search = Search(config(tmp_path))
    study, storage = search.open_study()
    with Worker(study, tmp_path) as one, Worker(study, tmp_path) as two:
        first, second = (TrialStore(study, storage, search.space, worker) for worker in (one, two))
        base = first.claim(search.space.choice(), here=False)
        lease = first.claim(search.space.choice(drops=["blocks.3"]), here=False)
        first.hand_back(lease)
        second.sync()
        taken = second.take_over(here=False)
        assert (taken.choice, taken.attempts) == (lease.choice, 2)
        assert first.take_over() is None
        # The other one, taken for dead meanwhile, has finished it: that counts.
        second.finish(base, "complete", accuracy=50.0, params=1)
        first.hand_back(base)
        first.report(base, 1, 40.0)
        assert first.candidates()[0].state == "complete"


@pytest.mark.slow
def test_of_a_killed_process_all_others_hear_at_once(tmp_path):
    # Whoever sees it first removes its file; that is no reason for the next to wait until it has long been silent.
    process, waiting = start(tmp_path, 60.0), threading.Event()
    while process.is_alive() and not (names := [p.name for p in (tmp_path / ".workers").glob("[!.]*")]):
        waiting.wait(0.05)
    search = Search(config(tmp_path))
    study, _ = search.open_study()
    watchers = [Worker(study, tmp_path) for _ in range(3)]
    assert all(watcher.is_alive(names[0]) for watcher in watchers)
    process.kill()
    process.join()
    assert [watcher.is_alive(names[0]) for watcher in watchers] == [False, False, False]


def test_of_another_machine_the_heartbeat_counts(tmp_path):
    # Its lock may be free, as some network file systems keep none.
    study, _ = Search(config(tmp_path)).open_study()
    worker = Worker(study, tmp_path)
    worker.folder.mkdir()
    for name, heard, alive in (
        ("gpu-7-4711-abcdef", time.time(), True),
        ("gpu-8-4711-abcdef", time.time() - 300, False),
    ):
        (worker.folder / name).touch()
        study.set_user_attr(f"worker {name}", heard)
        assert worker.is_alive(name) == alive


@pytest.mark.slow
def test_two_that_begin_together_have_the_latencies_of_the_first(tmp_path):
    both = [Search(config(tmp_path, budget="latency=0.8x", trials=4)) for _ in range(2)]
    results = [search.run(evaluator=FakeEvaluator()) for search in both]
    assert both[1].space == both[0].space
    assert results[1].limits == results[0].limits


@pytest.mark.slow
def test_hyperband_stops_the_same_each_time(tmp_path):
    # Nothing is over this budget, so most of what is drawn has pools.
    shared = {"trials": 24, "sampler": "random", "early_stop": "hyperband", "budget": "2x"}
    for name in ("one", "two"):
        own = config(tmp_path / name, storage=journal(tmp_path / name), **shared)
        Search(own).run(evaluator=FakeEvaluator(epochs=9))
    assert table(tmp_path / "one") == table(tmp_path / "two")
    assert any(row["state"] == "stopped" for row in table(tmp_path / "one"))


@pytest.mark.slow
def test_early_stopping_spends_less_and_is_the_same_when_it_goes_on(tmp_path):
    # Candidates of about the same cost are compared, so where little may be dropped enough of them are. They are drawn
    # at random: a sampler that learns from those that were stopped soon proposes few that are.
    epochs, shared = {}, {"trials": 40, "sampler": "random", "budget": "2x", "space": {"max_drops": 1}}
    for stop in ("none", "halving", "hyperband", "median"):
        counted = [0]

        class Counting(FakeEvaluator):
            def __call__(self, architecture, img_size, on_epoch, counted=counted):
                def count(*args):
                    counted[0] += 1
                    on_epoch(*args)

                return super().__call__(architecture, img_size, count)

        own = config(tmp_path / stop, early_stop=stop, storage=journal(tmp_path / stop), **shared)
        results = Search(own).run(evaluator=Counting(epochs=9))
        epochs[stop] = counted[0]
        stopped = [c for c in results.candidates if c.state == "stopped"]
        assert bool(stopped) == (stop != "none")
        assert all(c.accuracy is not None for c in stopped)
        assert results.best not in {c.number for c in stopped}
        assert not set(pareto_front(results.candidates)) & {c.number for c in stopped}
    assert max(epochs[stop] for stop in ("halving", "median")) < 0.8 * epochs["none"]

    def interrupt(architecture, call):
        if call == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Search(config(tmp_path / "parts", early_stop="halving", **shared)).run(
            evaluator=FakeEvaluator(interrupt, epochs=9)
        )
    Search(config(tmp_path / "parts", early_stop="halving", **shared)).run(evaluator=FakeEvaluator(epochs=9))
    assert table(tmp_path / "parts") == table(tmp_path / "halving")


def test_keeping_the_accuracy_finds_the_cheapest(tmp_path):
    own = config(tmp_path, keep_accuracy=1.0, trials=25, storage=journal(tmp_path))
    results = Search(own).run(evaluator=FakeEvaluator())
    base = results.candidates[0]
    kept = [c for c in results.candidates if c.accuracy >= base.accuracy - 1.0 and c.within_budget]
    best = results.candidates[results.best]
    assert best.macs == min(c.macs for c in kept) < base.macs
    assert results.budget == "1x"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:se/cret@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("postgresql://me:se cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:it's:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p@secret@host/db", "postgresql://me:***@host/db"),
        ("redis://:secret@host", "redis://:***@host"),
        ("mysql://host/db?user=me&password=secret&x=1", "mysql://host/db?user=me&password=***&x=1"),
        ("mysql://host/db?SSLPassword=secret", "mysql://host/db?SSLPassword=***"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("sqlite:////data/a:b.db", "sqlite:////data/a:b.db"),
    ],
)
def test_passwords_are_hidden(address, shown):
    assert str(StudyDatabase(Path("x"), address)) == shown
    for words in (["--storage", address], [f"--storage={address}"]):
        command = hide_password(shlex.join(["cp-search", "x", *words, "--seed", "1"]))
        shown_words = [word.replace(address, shown) for word in words]
        assert shlex.split(command) == ["cp-search", "x", *shown_words, "--seed", "1"]
    # In the midst of a message.
    assert "cret" not in hide_password(f"Can't reach {address!r}: it's away")


def test_a_password_stays_between_its_owner_and_the_config(tmp_path):
    address = "postgresql://me:pa/ss@host/db"
    for folder, command, readable in (("a", "cp-search x", 0o044), ("b", f"cp-search x --storage {address}", 0)):
        results = Search(config(tmp_path / folder, trials=2, command=command)).run(evaluator=FakeEvaluator())
        assert "pa/ss" not in results.command + (tmp_path / folder / "report.html").read_text()
        assert (tmp_path / folder / "search.json").stat().st_mode & 0o077 == readable
        assert load_config(tmp_path / folder).command == command
