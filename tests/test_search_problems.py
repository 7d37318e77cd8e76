"""The reference problems of ``benchmarks/search_quality.py``: that their optimum is one, and that runs count."""

import dataclasses
from itertools import product

import pytest

from benchmarks.search_problems import PROBLEMS, Synthetic
from benchmarks.search_quality import search
from benchmarks.search_quality_report import EVALUATIONS
from cp_vision import Architecture
from cp_vision.search import measure_space, parse_budgets
from cp_vision.search.config.space_options import SpaceOptions

VIT = {"img_size": 32, "patch_size": 8, "depth": 6}


@pytest.mark.parametrize(
    ("base", "args", "pools", "budget"),
    [
        ("test_vit2", VIT, None, "0.6x"),
        # No budget that binds but that one block stays.
        ("test_vit2", VIT | {"depth": 3}, None, "2x"),
        ("resnet18", {}, ("maxpool", "*downsample"), "0.8x"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_the_best_of_all_candidates(base, args, pools, budget, seed):
    options = SpaceOptions() if pools is None else SpaceOptions(pools=pools)
    space = measure_space(Architecture(base, model_args=args), (3, 32, 32), options)
    space = dataclasses.replace(space, limits=parse_budgets(budget, space.base_costs))
    problem = Synthetic(space, space.names, seed, base=80.0, loss=1.0)
    everything = (dict(zip(space.names, values, strict=True)) for values in product(*space.choices().values()))
    # What is another candidate under another name is no candidate.
    within = [choice for choice in everything if space.excess(choice) <= 0 and space.normal(choice) == choice]
    assert len(within) > 10
    assert problem.optimum == pytest.approx(max(map(problem.accuracy, within)), abs=1e-9)
    assert problem.accuracy(space.choice()) == 80.0


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_run_counts_what_is_missing_to_the_best(noise):
    problem = PROBLEMS["digits"]("0.7x", 0)
    first, again = (search(problem, "random", noise, 0) for _ in range(2))
    assert first[:-1] == again[:-1]
    regrets, shares = ([float(text) for text in part] for part in (first[:3], first[3:6]))
    assert len(EVALUATIONS) == 3
    assert all(0 <= share <= 1 for share in shares)
    assert min(regrets) >= 0
    assert noise or regrets == sorted(regrets, reverse=True)
    # In 12 points of accuracy between the worst and the best.
    assert regrets[-1] < 3
