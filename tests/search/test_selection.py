"""The winner and the front: one owner, one measure, everywhere."""

import csv
import re

import pytest
from fake_evaluator import FakeEvaluator, journal

from cp_vision.search import Search, SearchConfig, pareto_front


@pytest.mark.parametrize(
    "budget", ["0.7x", "params=0.8x", pytest.param("latency=0.8x,params=1x", marks=pytest.mark.slow)]
)
def test_the_front_is_in_the_measure_of_the_first_budget_everywhere(budget, tmp_path):
    values = {"base": "test_vit2", "trials": 16, "sampler": "random", "output": tmp_path, "storage": journal(tmp_path)}
    search = Search(SearchConfig(budget=budget, **values))
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


def test_results_print_as_a_table(tmp_path):
    config = SearchConfig(base="test_vit2", trials=6, output=tmp_path, storage=journal(tmp_path))
    results = Search(config).run(evaluator=FakeEvaluator())
    head, *rows = str(results).splitlines()
    assert head.split() == ["number", "accuracy", "seeds", "MACs", "pools", "drops"]
    assert sorted(int(row.split()[0]) for row in rows) == [c.number for c in results.candidates]
    scores = [float(row.split()[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    (winner,) = (row for row in rows if "winner" in row)
    assert int(winner.split()[0]) == results.best
    assert "base" in next(row for row in rows if row.split()[0] == "0")
