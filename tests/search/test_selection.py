"""The winner and the front: one owner, one measure, everywhere."""

import csv
import re

import pytest
from fake_evaluator import FakeEvaluator

from cp_vision.search import Search, SearchConfig, pareto_front


@pytest.mark.parametrize("budget", ["0.7x", "params=0.8x", "latency=0.8x,params=1x"])
def test_the_front_is_in_the_measure_of_the_first_budget_everywhere(budget, tmp_path):
    search = Search(SearchConfig(base="test_vit2", budget=budget, trials=16, sampler="random", output=tmp_path))
    results = search.run(evaluator=FakeEvaluator())
    measure = search.space.measure
    assert results.measure == measure == re.split("[=,]", budget if "=" in budget else "macs=")[0]
    within = [c for c in results.candidates if c.within_budget and c.state == "complete"]
    assert not results.candidates[0].within_budget
    expected = {
        c.number
        for c in within
        if not any(
            (o.cost(measure), -o.accuracy) <= (c.cost(measure), -c.accuracy) and o.accuracy >= c.accuracy and o != c
            for o in within
        )
    }
    front = pareto_front(results.candidates, results.measure)
    assert set(front) == expected
    with (tmp_path / "pareto.csv").open() as file:
        assert {int(row["number"]) for row in csv.DictReader(file) if row["front"] == "1"} == expected
    costs = [results.candidates[number].cost(measure) for number in front]
    assert costs == sorted(costs)
