"""The search around its trainings: budget, space, proposals, record, mistakes."""

import csv
import random
import re
import shutil
import sqlite3
from dataclasses import replace
from functools import partial

import optuna
import pytest
import timm
import torch
from fake_evaluator import FakeEvaluator, journal
from mistakes import assert_one_line_mistake

import cp_vision
from cp_vision import Architecture, UserError
from cp_vision.cost.macs import format_macs
from cp_vision.search import Search, SearchConfig, measure_space, parse_budgets
from cp_vision.search.cli.display import plan, summary
from cp_vision.search.cli.main import main
from cp_vision.search.cli.plan import at_a_time, forecast
from cp_vision.search.config.files import load_config
from cp_vision.search.evaluators.train import TrainEvaluator
from cp_vision.search.selection import leaders
from cp_vision.search.space.latency import measure_latency
from cp_vision.search.space.repair import BudgetRepair
from cp_vision.search.types import Candidate, Limit
from cp_vision.shared.command_line import CommandError

BASES = {
    "test_vit": {"img_size": 32, "patch_size": 8},
    "test_vit2": {"img_size": 32, "patch_size": 8},
    "resnet18": {},
}


def space_of(base, share=10.0, **options):
    space = measure_space(Architecture(base, pool_options=options, model_args=BASES[base]), (3, 32, 32))
    most = max(int(share * space.base_macs), int(space.least("macs")))
    return replace(space, limits=(Limit("macs", f"{share}x", most, space.base_macs),))


def config(output, **changes):
    values = {"base": "test_vit2", "output": output, "trials": 12, "pool_options": {"support_range": 0.25}}
    return SearchConfig(**{**values, **changes})


@pytest.mark.parametrize(
    ("text", "macs"),
    [("0.7x", 700), ("1X", 1000), (".5x", 500), ("2.9G", 2.9e9), ("35M", 35e6), ("3k", 3000), ("1e3", 1000), ("7", 7)],
)
def test_budgets(text, macs):
    (limit,) = parse_budgets(text, {"macs": 1000})
    assert (limit.measure, limit.most, limit.base) == ("macs", macs, 1000)


def test_several_budgets():
    base = {"macs": 1000, "params": 500, "latency": 8.0}
    limits = parse_budgets("0.7x, params=0.4K,latency=0.5x", base)
    assert [(limit.measure, limit.most) for limit in limits] == [("macs", 700), ("params", 400), ("latency", 4.0)]
    (limit,) = parse_budgets("latency=1500us", base)
    assert limit.most == 1.5


@pytest.mark.parametrize(
    "text", ["", "x", "0x", "-1x", "70%", "nan", "infx", "1e-3x", "2.9GB", "0.7 of it", "0", "1e999"]
)
def test_texts_that_are_no_budget(text):
    with pytest.raises(UserError, match=re.escape(f"budget {text!r}: {text.strip()!r} is neither a share")):
        parse_budgets(text, {"macs": 1000})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parms=0.5x", "'parms' is not one of macs, params, latency; did you mean 'params'"),
        ("0.5x,macs=3", "has two budgets of macs"),
        ("latency=3G", "'3G' is neither a share of the base's latency"),
        ("params=5ms", "'5ms' is neither a share of the base's params"),
    ],
)
def test_budgets_that_are_none(text, message):
    with pytest.raises(UserError, match=message):
        parse_budgets(text, {"macs": 1000, "params": 10, "latency": 1.0})


@pytest.mark.parametrize(
    ("macs", "text"), [(0, "0"), (999, "999"), (1000, "1K"), (4_089_185_256, "4.09G"), (2_500_000_000_000, "2500G")]
)
def test_macs_for_people(macs, text):
    assert format_macs(macs) == text


@pytest.mark.parametrize("base", BASES)
def test_the_sum_is_the_cost_of_the_built_model(base):
    space = space_of(base, hidden=3)
    repair, rng = BudgetRepair(space), random.Random(0)
    for _ in range(5):
        choice = repair.draw(rng)
        assert space.macs(choice) == space.architecture(choice).macs((3, 32, 32))
    assert space.macs(space.choice()) == space.base_macs
    droppable = [block for block in space.blocks if block.droppable]
    kept = min(droppable, key=lambda block: block.macs) if len(droppable) == len(space.blocks) else None
    least = space.choice(drops=[block.name for block in droppable if block is not kept])
    assert space.macs(least) == space.least("macs")
    assert replace(space, limits=(Limit("macs", "", space.least("macs"), 1),)).excess(least) == 0


def test_dropping_everything_is_never_within_a_budget():
    space = space_of("test_vit")
    everything = space.choice(drops=[block.name for block in space.blocks])
    assert space.excess(everything) > 0


def test_a_pool_that_breaks_the_budget_alone_is_no_choice():
    choices = space_of("resnet18", 0.0).choices()
    assert all("pool" not in allowed for allowed in choices.values())
    assert choices["layer2.0"] == ("keep",)
    assert choices["layer2.1"] == ("keep", "drop")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["surrogate", "tpe"])
def test_two_hundred_proposals_and_none_over_the_budget(sampler, tmp_path):
    fake = FakeEvaluator()
    search = Search(config(tmp_path / "x", trials=200, sampler=sampler, storage=journal(tmp_path / "x")))
    results = search.run(evaluator=fake)
    base, *others = fake.seen
    assert len(others) >= 199
    assert (base.pools, base.drops) == ((), ())
    costs = [candidate.macs for candidate in results.candidates]
    assert costs[0] == results.base_macs > results.budget_macs
    assert all(cost <= results.budget_macs for cost in costs[1:])
    # What is said is what is counted in models that are built; some of them, as building takes most of the time.
    sample = range(0, len(costs), 8)
    assert [costs[i] for i in sample] == [fake.seen[i].macs(search.input_size) for i in sample]
    assert len({architecture.to_json() for architecture in fake.seen}) == len(fake.seen)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a finished search, the search, and its results."""
    folder = tmp_path_factory.mktemp("finished")
    search = Search(config(folder))
    return folder, search, search.run(evaluator=FakeEvaluator())


def test_base_and_drops_only_are_in_the_race(searched):
    results = searched[2]
    by_number = {c.number: c for c in results.candidates}
    assert (by_number[0].pools, by_number[0].drops, by_number[0].state) == ((), (), "complete")
    drops_only = by_number[results.best_drops_only]
    assert not drops_only.pools
    winner = by_number[results.best]
    assert winner.accuracy == max(c.accuracy for c in results.candidates if c.macs <= results.budget_macs)
    # What the winner's pools bring is known: its counterpart without them was tried too.
    assert winner.pools
    assert any(c.drops == winner.drops and not c.pools for c in results.candidates)


def test_the_base_can_win_when_the_budget_allows_it(tmp_path):
    class NothingHelps(FakeEvaluator):
        def __call__(self, architecture, img_size, on_epoch):
            score = super().__call__(architecture, img_size, on_epoch)
            return type(score)(50.0 + (not architecture.pools and not architecture.drops), score.params)

    results = Search(config(tmp_path, budget="1x", storage=journal(tmp_path))).run(evaluator=NothingHelps())
    assert results.best == 0


def test_leaders_of_equals_are_the_cheaper_ones():
    def candidate(number, accuracy, macs, pools=(), drops=("blocks.0",)):
        state = "failed" if accuracy is None else "complete"
        return Candidate(number, pools, drops, macs, 1, accuracy, state, within_budget=macs <= 70)

    candidates = [
        candidate(0, 99.0, 100, drops=()),
        candidate(1, 90.0, 60, pools=("blocks.1",)),
        candidate(2, 90.0, 50, pools=("blocks.2",)),
        candidate(3, 80.0, 50),
        candidate(4, None, 10),
        candidate(5, 89.0, 40),
        replace(candidate(6, 95.0, 40), state="stopped"),
    ]
    found = leaders(candidates)
    assert (found.base.number, found.best.number, found.best_drops_only.number) == (0, 2, 5)
    # The cheapest that keeps the accuracy; where none does the most accurate.
    assert leaders(candidates, 10.0).best.number == 5
    assert leaders(candidates, 9.5).best.number == 2
    assert leaders(candidates, 1.0).best.number == 2
    # What is cheaper is a matter of the first budget.
    slow, fast = (replace(candidates[n], latency=time) for n, time in ((1, 9.0), (2, 5.0)))
    slow, fast = replace(slow, macs=50), replace(fast, macs=60)
    assert leaders([candidates[0], slow, fast], 10.0).best.number == 1
    assert leaders([candidates[0], slow, fast], 10.0, "latency").best.number == 2
    # Where some were trained with several seeds, those alone can win.
    trained = [replace(c, by_seed={0: 80.0, 1: 60.0}) if c.number == 3 else c for c in candidates]
    assert leaders(trained).best.number == 3
    assert leaders([]).all() == []


def table(folder):
    with (folder / "pareto.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_search_goes_on_where_it_stopped(tmp_path):
    whole = FakeEvaluator()
    Search(config(tmp_path / "whole")).run(evaluator=whole)

    def interrupt(architecture, call):
        if call == 7:
            raise KeyboardInterrupt

    first = FakeEvaluator(interrupt)
    with pytest.raises(KeyboardInterrupt):
        Search(config(tmp_path / "parts")).run(evaluator=first)
    assert len(table(tmp_path / "parts")) == 6
    assert "html" in (tmp_path / "parts" / "report.html").read_text()
    rest = FakeEvaluator()
    Search(config(tmp_path / "parts")).run(evaluator=rest)
    assert first.seen[:6] + rest.seen == whole.seen
    assert table(tmp_path / "parts") == table(tmp_path / "whole")
    # Finished: nothing is trained again; more trials go on from there.
    again = FakeEvaluator()
    Search(config(tmp_path / "parts")).run(evaluator=again)
    assert again.seen == []
    more = FakeEvaluator()
    Search(config(tmp_path / "parts", trials=16)).run(evaluator=more)
    assert len(more.seen) >= 2


def test_a_candidate_that_fails_is_recorded_and_not_tried_again(tmp_path):
    def fail(architecture, call):
        if call in (3, 5):
            raise (RuntimeError if call == 3 else OSError)("the loss is nan\nin epoch 2")

    fake = FakeEvaluator(fail)
    results = Search(config(tmp_path, trials=6)).run(evaluator=fake)
    failed = [c for c in results.candidates if c.state == "failed"]
    assert [c.number for c in failed] == [2, 4]
    assert [c.reason for c in failed] == ["the loss is nan in epoch 2", "OSError: the loss is nan in epoch 2"]
    assert failed[0].accuracy is None
    again = FakeEvaluator()
    Search(config(tmp_path, trials=6)).run(evaluator=again)
    assert again.seen == []


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "file/below"])
def test_output_names_that_cant_be(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"can't be used: .*; choose another --output"):
        Search(config(tmp_path / name))


def test_a_study_without_candidates_takes_other_settings(tmp_path):
    def fail(architecture, call):
        raise RuntimeError("out of memory")

    with pytest.raises(CommandError):
        Search(config(tmp_path)).run(evaluator=FakeEvaluator(fail))
    results = Search(config(tmp_path, seed=3, trials=2)).run(evaluator=FakeEvaluator())
    assert len(results.candidates) >= 2
    with pytest.raises(UserError, match="holds another study"):
        Search(config(tmp_path, trials=2))


def test_a_base_that_fails_ends_the_search_and_is_tried_again(tmp_path):
    def fail(architecture, call):
        raise RuntimeError("out of memory")

    with pytest.raises(CommandError, match="the base itself can't be trained: out of memory"):
        Search(config(tmp_path, trials=2)).run(evaluator=FakeEvaluator(fail))
    fake = FakeEvaluator()
    Search(config(tmp_path, trials=2)).run(evaluator=fake)
    assert not fake.seen[0].drops


def test_the_study_is_one_that_optuna_opens(searched):
    folder, _, results = searched
    study = optuna.load_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="cp-search")
    assert study.metric_names == ["validation accuracy"]
    assert len(study.trials) == len(results.candidates)
    for trial, candidate in zip(study.trials, results.candidates, strict=True):
        assert trial.value == candidate.accuracy
        assert (trial.constraints["macs"] <= 0) == (candidate.macs <= results.budget_macs)
        assert Architecture.from_json(trial.user_attrs["architecture"]).drops == candidate.drops
    accuracies = [c.accuracy for c in results.candidates if c.macs <= results.budget_macs]
    # The base is over the budget, which Optuna knows.
    assert study.best_value == max(accuracies)


def test_a_score_that_is_no_number_is_a_failure(tmp_path):
    class NoNumber(FakeEvaluator):
        def __call__(self, architecture, img_size, on_epoch):
            score = super().__call__(architecture, img_size, on_epoch)
            return type(score)(float("nan"), 1) if len(self.seen) == 2 else score

    results = Search(config(tmp_path, trials=4)).run(evaluator=NoNumber())
    assert [c.reason for c in results.candidates if c.state == "failed"] == ["the score is nan"]


def test_one_search_may_run_twice(searched):
    _, search, first = searched
    again = FakeEvaluator()
    assert search.run(evaluator=again) == first
    assert again.seen == []


def test_what_sqlite_left_half_written_is_rolled_back(tmp_path):
    Search(config(tmp_path / "one", trials=5)).run(evaluator=FakeEvaluator())
    with sqlite3.connect(tmp_path / "one" / "study.db") as database:
        # A cache of one page spills to the file in the middle of the transaction, as a large one does.
        database.execute("PRAGMA cache_size = 1")
        database.execute("UPDATE trial_user_attributes SET value_json = '\"' || hex(zeroblob(2000)) || '\"'")
        # What a kill leaves: the file and its journal.
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        database.rollback()
    assert (tmp_path / "two" / "study.db-journal").stat().st_size > 0
    fake = FakeEvaluator()
    Search(config(tmp_path / "two", trials=5)).run(evaluator=fake)
    assert fake.seen == []
    assert table(tmp_path / "two") == table(tmp_path / "one")


def garbage(folder):
    (folder / "study.db").write_bytes(b"not a database" * 100)


def foreign_study(folder):
    optuna.create_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="mine")


def foreign_database(folder):
    with sqlite3.connect(folder / "study.db") as database:
        database.execute("CREATE TABLE cats (name TEXT)")


def other_files(folder):
    (folder / "thesis.tex").write_text("...")


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """The folder of another finished search; nothing changes it."""
    folder = tmp_path_factory.mktemp("another") / "x"
    Search(config(folder, trials=2)).run(evaluator=FakeEvaluator())
    return folder


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (garbage, "is no study of cp-search"),
        (foreign_study, "is no study of cp-search"),
        (foreign_database, "is no study of cp-search"),
        (other_files, r"holds other files \(thesis.tex\)"),
    ],
)
def test_what_is_in_the_output_folder_stays(prepare, message, tmp_path):
    prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=message) as caught:
        Search(config(tmp_path, budget="0.5x"))
    assert "choose another" in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_plan_takes_no_notice_of_another_search_there(another, capsys):
    before = {path: path.read_bytes() for path in another.rglob("*") if path.is_file()}
    assert main(["test_vit2", "--budget", "0.5x", "--plan", "--output", str(another)]) == 0
    assert "budget 0.5x" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in another.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["status", "report", "resume", "export"])
def test_a_study_that_is_gone_is_named(command, another, tmp_path, capsys):
    output = tmp_path / "x"
    shutil.copytree(another, output)
    (output / "study.db").unlink()
    number = ["0"] if command == "export" else []
    line = assert_one_line_mistake(main, [command, str(output), *number], capsys, [str(output), "study.db"])
    assert "begin it" not in line


@pytest.mark.parametrize("elsewhere", [False, True], ids=["new study", "study begun in another folder"])
def test_with_a_storage_too_the_output_folder_is_ours_or_empty(elsewhere, another, tmp_path):
    storage = f"journal:{tmp_path / 'shared.log'}"
    if elsewhere:
        Search(config(tmp_path / "one" / "x", storage=storage, trials=2)).run(evaluator=FakeEvaluator())
    folder = tmp_path / "two" / "x"
    (folder / "weights" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds other files \(weights\)"):
        Search(config(folder, storage=storage, trials=2))
    (folder / "weights" / "mine").rmdir()
    (folder / "weights").rmdir()
    # As is a search that keeps its study in the folder.
    with pytest.raises(UserError, match=r"holds other files \("):
        Search(config(another, storage=f"journal:{tmp_path / 'other.log'}", trials=2))
    # The study may lie in the folder itself, and be emptied.
    inside = f"journal:{folder / 'study.log'}"
    for _ in range(2):
        Search(config(folder, storage=inside, trials=2)).run(evaluator=FakeEvaluator())
        Search(config(folder, storage=inside, trials=2))
        (folder / "study.log").unlink()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "seed"),
        ({"sampler": "random"}, "sampler"),
        ({"pool_options": {}}, "pool options"),
        ({"overrides": ("epochs=3",)}, "recipe value epochs"),
        ({"val_fraction": 0.3}, "number of images"),
        ({"budget": "0.5x"}, "budget in MACs(?= is 4294087 there, not 3067205)"),
        ({"model_kwargs": {"patch_size": 4}}, "budget in MACs"),
        ({"early_stop": "none"}, "early stopping"),
        ({"keep_accuracy": 1.0, "budget": "0.7x"}, "keep accuracy"),
        ({"objective": "pareto"}, "objective"),
        ({"space": {"max_pools": 2}}, "space"),
        ({"base": "test_vit"}, "base"),
    ],
)
def test_another_search_is_told_what_differs(change, key, another):
    before = {path: path.read_bytes() for path in another.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"holds another study: ({key}) is .*; choose another output folder"):
        Search(config(another, **{"trials": 2, **change}))
    assert {path: path.read_bytes() for path in another.rglob("*") if path.is_file()} == before


def test_a_study_that_was_cut_short_in_the_making_is_made_again(tmp_path):
    (tmp_path / ".study.db.unfinished").write_bytes(b"SQLite format 3\0 and no more")
    (tmp_path / ".report.html.1-1.unfinished").write_text("left by a kill")
    (tmp_path / ".lock").touch()
    results = Search(config(tmp_path, trials=2)).run(evaluator=FakeEvaluator())
    assert len(results.candidates) == 2
    assert not list(tmp_path.glob("*.unfinished"))


def test_recipe_model_arguments_are_for_the_recipes_own_model(tmp_path):
    assert Search(config(tmp_path)).space.base.model_args["patch_size"] == 8
    assert "patch_size" not in Search(config(tmp_path, base="resnet18")).space.base.model_args
    assert Search(config(tmp_path, model_kwargs={"patch_size": 16})).space.base.model_args["patch_size"] == 16
    assert not any(tmp_path.iterdir())


def test_every_base_of_the_digits_is_searched_by_its_name_alone(tmp_path):
    for base in ("test_vit", "resnet18", "resnet26"):
        results = Search(config(tmp_path / base, base=base, trials=3)).run(evaluator=FakeEvaluator())
        assert results.best is not None
        model = timm.create_model(f"cp_{base}", pools=results.candidates[-1].pools, drops=results.candidates[-1].drops)
        assert isinstance(model, torch.nn.Module)
        assert cp_vision.find_sites(model)


# A training of seconds.
SMALL = {
    "model_kwargs": {"patch_size": 16, "depth": 3},
    "overrides": ("epochs=1", "opt=adamw", "lr=0.001", "batch_size=512", "workers=0"),
}


class CountedBackend:
    """A compiler that notes what it compiles and runs."""

    def __init__(self):
        self.dynamic, self.runs = [], 0

    def __call__(self, graph, inputs):
        self.dynamic.append(any(isinstance(x, torch.SymInt) for x in inputs))

        def run(*args):
            self.runs += 1
            return graph(*args)

        return run


class Layer(torch.nn.Module):
    """A class of its own: of those that torch brings it compiles any number."""

    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return x * self.weight


@pytest.mark.parametrize("shapes", [[(1, 2 + i) for i in range(12)], [(2 + i, 5) for i in range(12)]])
def test_every_module_that_is_measured_is_compiled_once_and_for_its_shapes(shapes, monkeypatch):
    backend = CountedBackend()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.compiler.reset()
    modules = [(Layer(shape[1]), torch.zeros(shape)) for shape in shapes]
    # More of one class than torch compiles by default, which timm changes.
    with torch._dynamo.config.patch(recompile_limit=8):
        for module, x in modules * 2:
            before = backend.runs
            measure_latency(module, x, compiled=True, seconds=1e-4)
            assert backend.runs > before, x.shape
    assert backend.dynamic == [False] * 12


@pytest.mark.slow
def test_with_a_recipe_that_compiles_every_candidate_is_compiled(tmp_path):
    backend = CountedBackend()
    torch._dynamo.register_backend(backend, name="counted")
    overrides = (*SMALL["overrides"], "torchcompile=counted")
    search = Search(config(tmp_path, **SMALL | {"overrides": overrides}))
    with torch._dynamo.config.patch(recompile_limit=1):
        for drops in ((), ("blocks.1",), ("blocks.2",)):
            before = backend.runs
            search.trainer(search.space.architecture(search.space.choice(drops=drops)), None, lambda *_: None)
            assert backend.runs > before, drops


@pytest.mark.parametrize(
    ("base", "model_kwargs", "told"),
    [("test_vit2", None, False), ("test_vit", None, True), ("test_vit", {"patch_size": 16}, False)],
)
def test_a_plan_says_which_arguments_are_another_models(base, model_kwargs, told, tmp_path):
    search = Search(config(tmp_path, base=base, model_kwargs=model_kwargs, recipe="digits"))
    assert ("'init_values': 1.0" in plan(search)) == told


def test_a_plan_divides_by_what_runs_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    search = Search(config(tmp_path, budget="0.7x,params=1x", trials=11, **SMALL))
    share = search.space.limits[0].most / search.space.base_macs
    for changes, parallel in (
        ({"executor": "local"}, 1),
        ({}, 4),
        ({"cpus": 0.5}, 8),
        ({"parallel": 3}, 3),
        ({"parallel": 100}, 4),
        # The size of a cluster isn't known.
        ({"parallel": 100, "address": "head:6379"}, 100),
    ):
        asked = {"executor": "ray", "cpus": 1.0, "parallel": None, "address": None, **changes}
        search.config = search.config.with_values(**asked)
        assert at_a_time(search.config) == parallel, changes
    found = forecast(search)
    # Beside the trials the counterparts of three finalists, and two further trainings of these, these and the base.
    again = 2 * (1 + 6 * share) + 3 * share
    assert 3600 * found.hours == pytest.approx(found.candidate_seconds * (1 + 10 * share + again) / parallel)


def test_sensitivity_tries_one_candidate_and_says_so(tmp_path, capsys):
    more = ("epochs=3", "batch_size=128", "lr=0.004")
    first = Search(config(tmp_path, **SMALL | {"overrides": (*SMALL["overrides"], *more)}))
    first.trainer(first.space.base, None, lambda *_: None)
    (weights,) = tmp_path.glob("weights/*/model.safetensors")
    words = ["test_vit2", "--model-kwargs", "patch_size=16", "depth=3", "--evaluator", "sensitivity"]
    words += ["--set", f"initial_checkpoint={weights}", "--output", str(tmp_path / "s")]
    assert main([*words, "--plan"]) == 0
    assert "1 is to be tried" in capsys.readouterr().out
    assert main(words) == 0
    assert main(["status", str(tmp_path / "s")]) == 0
    shown = capsys.readouterr()
    assert "1 candidates tried" in shown.out
    assert "more to be tried" not in shown.out
    assert "/1 trials" in shown.err


def test_after_more_trials_the_command_is_for_these(tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    command = f"cp-search test_vit2 --trials 2 --output {tmp_path}"
    Search(config(tmp_path, trials=2, command=command)).run(evaluator=FakeEvaluator())
    monkeypatch.setattr(TrainEvaluator, "__call__", interrupt)
    assert main(["resume", str(tmp_path), "--trials", "5"]) == 130
    assert f"The same command goes on: cp-search resume {tmp_path} --trials 5\n" in capsys.readouterr().err
    command = f"cp-search test_vit2 --output {tmp_path} --trials 5"
    assert load_config(tmp_path).command == command
    assert command in (tmp_path / "report.html").read_text()


def test_scores_with_shared_weights_are_told_as_such(searched):
    _, search, results = searched
    for evaluator, by_seed, shown in (
        ("train", {}, "validation 80.12 ± "),
        ("supernet", {}, " with shared weights, "),
        ("supernet", {3: 91.0, 4: 92.0}, "validation 91.50 ± 0.50 % (2 seeds), "),
    ):
        base = replace(results.candidates[0], accuracy=80.12, by_seed=by_seed)
        assert shown in summary(replace(results, evaluator=evaluator, candidates=(base,)), search)
