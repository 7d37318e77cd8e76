"""What a search may choose from: the file, patterns, limits, settings, and what each choice costs."""

import csv
import itertools
import random
from dataclasses import replace

import pytest
import timm
import torch
from fake_evaluator import FakeEvaluator, journal
from slow_cases import slow_unless

from cp_vision import Architecture, UserError
from cp_vision.cost.macs import count_macs
from cp_vision.search import Search, SearchConfig, load_space_options, measure_space, parse_budgets
from cp_vision.search.outputs.writer import write_tables
from cp_vision.search.space.repair import BudgetRepair
from cp_vision.search.space.size import count_candidates
from cp_vision.search.space.space import DROP, POOL, Space, genotype_key
from cp_vision.search.types import Limit

VIT = Architecture("test_vit", model_args={"img_size": 32, "patch_size": 8})
RESNET = Architecture("resnet18")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"pools": ["block.*"]}, "pools: no such site 'block.*'; did you mean 'blocks."),
        ({"drops": ["blocks.9"]}, "drops: no such site 'blocks.9'"),
    ],
)
def test_sites_that_are_not_there(choices, message):
    with pytest.raises(UserError, match=message):
        measure_space(VIT, (3, 32, 32), load_space_options(choices))


def test_a_block_that_cant_be_left_out():
    with pytest.raises(UserError, match=r"layer2\.0 can't be left out"):
        measure_space(RESNET, (3, 64, 64), load_space_options({"drops": ["layer2.0", "layer3.*"]}))
    # A pattern takes those that can.
    space = measure_space(RESNET, (3, 64, 64), load_space_options({"drops": ["layer2.?"]}))
    assert [block.name for block in space.blocks if block.droppable] == ["layer2.1"]


def drawn(space, count=60, seed=0):
    rng, repair = random.Random(seed), BudgetRepair(space)
    choices = [repair.draw(rng) for _ in range(count)]
    assert all(choice is not None for choice in choices)
    return choices


def test_patterns_and_numbers_hold():
    choices = load_space_options({"pools": ["blocks.[1-4]"], "drops": ["blocks.*"], "max_pools": 2, "max_drops": 1})
    space = measure_space(VIT, (3, 32, 32), choices)
    for choice in drawn(space):
        architecture = space.architecture(choice)
        assert set(architecture.pools) <= {"blocks.1", "blocks.2", "blocks.3", "blocks.4"}
        assert len(architecture.pools) <= 2
        assert len(architecture.drops) <= 1
    assert any(len(space.architecture(choice).pools) == 2 for choice in drawn(space))


@pytest.mark.parametrize("base", [VIT, RESNET], ids=lambda base: base.base)
def test_the_default_is_where_pools_are_cheap(base):
    space = measure_space(base, (3, 32, 32) if base is VIT else (3, 64, 64))
    poolable = {block.name for block in space.blocks if block.poolable}
    if base is VIT:
        # The last one's pool would be seen by nothing but where attention sees it.
        assert poolable == {f"blocks.{i}" for i in range(5)}
        whole = measure_space(base, (3, 32, 32), load_space_options({"modes": ["gated", "pre_attn"]}))
        assert {block.name for block in whole.blocks if block.poolable} == {f"blocks.{i}" for i in range(6)}
    else:
        assert poolable == {"layer3.0", "layer3.1", "layer4.0", "layer4.1"}


CASES = {
    "modes": (VIT, (3, 32, 32), {"modes": ["gated", "replace", "pre_attn"]}),
    "ranges": (VIT, (3, 32, 32), {"support_range": [0.1, 0.3]}),
    "sizes of a fixed grid": (VIT, (3, 32, 32), {"img_size": [32, 48]}),
    "sizes of a ConvNet": (RESNET, (3, 64, 64), {"img_size": [64, 96], "support_range": [0.1, 0.2]}),
    "strided pools": (RESNET, (3, 64, 64), {"pools": ["maxpool", "layer?.0.downsample", "layer4.*"]}),
}


@pytest.mark.parametrize("case", slow_unless({"modes", "strided pools"}, CASES))
def test_sums_are_the_costs_of_the_built_models(case):
    base, size, values = CASES[case]
    space = measure_space(base, size, load_space_options(values))
    for choice in drawn(space, 8):
        architecture, side = space.architecture(choice), space.img_size(choice)
        pixels = size if side is None else (3, side, side)
        with torch.device("meta"):
            model = architecture.build()
        assert space.macs(choice) == count_macs(model, pixels)
        assert space.cost(choice, "params") == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"max_pools": 2},
        {"max_drops": 1},
        {"max_pools": 1, "max_drops": 3, "pools": ["blocks.[1-4]"], "drops": ["blocks.[2-5]"]},
        {"max_pools": 0, "modes": ["gated", "replace"]},
        {"modes": ["gated", "pre_attn"]},
        {"max_pools": 2, "modes": ["gated", "replace"], "img_size": [32, 48], "drops": ["blocks.0"]},
    ],
)
def test_candidates_are_counted_as_they_may_be(choices):
    space = measure_space(VIT, (3, 32, 32), load_space_options(choices))
    allowed = space.choices()
    found = set()
    for values in itertools.product(*allowed.values()):
        choice = space.normal(dict(zip(allowed, values, strict=True)))
        sites = [choice[name] for name in space.names]
        if sites.count(POOL) <= choices.get("max_pools", 6) and sites.count(DROP) <= choices.get("max_drops", 6):
            found.add(genotype_key(choice))
    assert count_candidates(space) == len(found)


def test_a_pool_that_nothing_looks_at_is_none():
    """After the last block that stays the class token alone is."""
    space = measure_space(VIT, (3, 32, 32), load_space_options({"modes": ["gated", "pre_attn"]}))
    for drops in (["blocks.5"], ["blocks.4", "blocks.5"]):
        last = f"blocks.{5 - len(drops)}"
        pooled = space.choice(pools=["blocks.1", last], drops=drops)
        assert space.normal(pooled) == space.choice(pools=["blocks.1"], drops=drops)
        assert space.normal(space.choice(pools=[last], drops=drops)) == space.choice(drops=drops)
        seen = space.choice(pools=["blocks.1", last], drops=drops, mode="pre_attn")
        assert space.normal(seen) == seen
    averaged = measure_space(Architecture("test_vit2", model_args={"img_size": 32, "patch_size": 8}), (3, 32, 32))
    pooled = averaged.choice(pools=["blocks.6"], drops=["blocks.7"])
    assert averaged.normal(pooled) == pooled


def test_what_pools_are_like_is_no_difference_without_pools():
    space = measure_space(VIT, (3, 32, 32), load_space_options({"modes": ["gated", "replace"]}))
    plain = space.choice(drops=["blocks.1"])
    assert space.normal({**plain, "mode": "replace"}) == plain
    pooled = space.choice(pools=["blocks.1"], mode="replace")
    assert space.normal(pooled) == pooled
    assert space.architecture(pooled).pool_options["mode"] == "replace"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pools": ["blocks.99"]}, r"no site of this space: blocks\.99; it has blocks\.0"),
        ({"drops": ["blocks.99"]}, r"no site of this space: blocks\.99"),
        ({"colour": "red"}, "no setting of this space: colour; it has mode"),
        ({"mode": "soft"}, "mode 'soft' is not one of gated, replace"),
        ({"pools": ["blocks.0"], "drops": ["blocks.0"]}, r"blocks\.0 can't be pooled and dropped at once"),
        ({"pools": ["blocks.1"]}, r"this space doesn't pool blocks\.1"),
        ({"drops": ["blocks.0"]}, r"this space doesn't drop blocks\.0"),
    ],
)
def test_a_choice_that_the_space_forbids_is_refused(wrong, message):
    choices = load_space_options({"modes": ["gated", "replace"], "pools": ["blocks.0"], "drops": ["blocks.1"]})
    with pytest.raises(ValueError, match=message):
        measure_space(VIT, (3, 32, 32), choices).choice(**wrong)


def test_several_budgets_all_hold():
    space = measure_space(VIT, (3, 32, 32))
    limits = (Limit("macs", "0.8x", 0.8 * space.base_macs, space.base_macs),)
    limits += (Limit("params", "0.6x", 0.6 * space.base_costs["params"], space.base_costs["params"]),)
    space = replace(space, limits=limits)
    for choice in drawn(space):
        assert space.cost(choice, "macs") <= limits[0].most
        assert space.cost(choice, "params") <= limits[1].most
    assert max(space.constraints(space.choice()).values()) > 0


@pytest.mark.slow
def test_latency_is_measured_once_and_kept(tmp_path):
    config = SearchConfig(base="test_vit2", budget="latency=0.7x", output=tmp_path, trials=8)
    first = Search(config)
    results = first.run(evaluator=FakeEvaluator())
    assert all(c.latency <= first.space.limits[0].most for c in results.candidates[1:])
    assert results.budget_macs is None
    # What was measured on a whole model and a sum over parts that were measured are two columns.
    write_tables(replace(results, measured_latency={1: 3.5}), tmp_path)
    with (tmp_path / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["latency_ms"] for row in rows] == ["", "3.5", *("" for _ in rows[2:])]
    assert [float(row["predicted_latency_ms"]) for row in rows] == [c.latency for c in results.candidates]
    # A search that goes on has the same table, or its budget would be another one.
    again = Search(config)
    assert again.space.costs == first.space.costs
    assert [c.number for c in again.run(evaluator=FakeEvaluator()).candidates] == [c.number for c in results.candidates]


@pytest.mark.slow
def test_a_search_over_settings(tmp_path):
    space = {"modes": ["gated", "pre_attn"], "support_range": [0.1, 0.3], "img_size": [32, 24], "max_pools": 3}
    config = SearchConfig(base="test_vit2", space=space, trials=25, output=tmp_path, storage=journal(tmp_path))
    results = Search(config).run(evaluator=FakeEvaluator())
    assert results.candidates[0].settings == {"mode": "gated", "support_range": 0.1, "img_size": 32}
    for name, values in (("mode", space["modes"]), ("img_size", space["img_size"])):
        assert {c.settings[name] for c in results.candidates} == set(values)
    assert all(len(c.pools) <= 3 for c in results.candidates)


@pytest.mark.parametrize("base", [VIT, RESNET], ids=["vit", "resnet"])
def test_a_space_comes_back_from_json_as_it_was(base):
    options = {"modes": ["gated", "replace"], "support_range": [0.1, 0.3], "img_size": [32, 64], "max_drops": 2}
    space = measure_space(base, (3, 32, 32), load_space_options(options))
    space = replace(space, limits=parse_budgets("0.7x,params=1x", space.base_costs))
    again = Space.from_json(space.to_json())
    assert again == space
    rng = random.Random(0)
    for _ in range(50):
        choice = {name: rng.choice(values) for name, values in space.choices().items()}
        assert again.cost(choice) == space.cost(choice)
        assert again.constraints(choice) == space.constraints(choice)
        assert again.architecture(choice) == space.architecture(choice)


def test_a_base_is_counted_once(monkeypatch):
    space = measure_space(VIT, (3, 32, 32))
    assert measure_space(VIT, (3, 32, 32)) is space
    assert measure_space(VIT, (3, 40, 40)).base_macs != space.base_macs

    # Of another model under the same name it counts again.
    def wider(**kwargs):
        return timm.create_model("test_vit2", **kwargs)

    monkeypatch.setitem(timm.models._registry._model_entrypoints, VIT.base, wider)
    assert measure_space(VIT, (3, 32, 32)) is not space
