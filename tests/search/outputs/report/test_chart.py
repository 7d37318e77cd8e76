"""The chart of accuracy against MACs: dots, axes, budget, fronts and the gap between them."""

import re
from dataclasses import replace

import pytest
from report_examples import BASE, CHEAP, FAILED, FULL, NAN, PLAIN, POOLED, RICH, STOPPED, WORSE, Page, spots, study

from cp_vision.search.outputs.report.axis import ticks
from cp_vision.search.outputs.report.chart import find_gap, lowest_shown
from cp_vision.search.outputs.report.figures import finite_only
from cp_vision.search.outputs.report.page import render_report
from cp_vision.search.selection import pareto_front
from cp_vision.search.types import Candidate


def test_chart_keeps_order_and_budget() -> None:
    text = render_report(FULL)
    where = {number: (float(x[:-1]), float(y[:-1])) for number, (x, y) in spots(text).items()}
    assert where[3][0] < where[2][0] < where[1][0] < where[0][0]
    assert where[1][1] < where[0][1] < where[2][1] < where[3][1] < where[4][1]  # down is less accurate
    edge = re.search(r'<line class="budget" x1="([\d.]+)%"', text)
    assert edge is not None
    assert where[1][0] < float(edge[1]) < where[0][0]
    assert "budget 0.7x</text>" in text


def test_front_line_passes_through_the_front() -> None:
    text = render_report(FULL)
    segments = re.findall(r'<line class="front" x1="(\S+)" y1="(\S+)" x2="(\S+)" y2="(\S+)"/>', text)
    corners = [(x, y) for x1, y1, x2, y2 in segments for x, y in ((x1, y1), (x2, y2))]
    assert pareto_front(FULL.candidates) == (3, 2, 1)
    places = [corners.index(spots(text)[number]) for number in pareto_front(FULL.candidates)]
    assert places == sorted(places)
    assert corners[1:-1:2] == corners[2::2]  # each segment begins where the one before ended
    assert all(x1 == x2 or y1 == y2 for x1, y1, x2, y2 in segments)
    assert corners[-1][0] == "100.0%"


@pytest.mark.parametrize(
    ("limits", "axis", "allowed"),
    [
        (RICH.limits[:1], "MACs for one image", None),
        (RICH.limits[1:2], "parameters", "208 K parameters"),
        (RICH.limits[2:3], "predicted time of one image in ms", None),
        ((), "MACs for one image", None),
    ],
)
def test_the_axis_is_in_the_measure_of_the_first_budget(limits, axis, allowed) -> None:
    candidates = tuple(replace(c, latency=c.macs / 800_000) for c in RICH.candidates)
    text = render_report(replace(RICH, candidates=candidates, budget_macs=None, limits=limits))
    (title,) = re.findall(r'<title id="chart-title">.* against (.*)</title>', text)
    assert title == axis
    assert bool(re.search('class="(budget|budget-label|over)"', text)) == bool(limits)
    assert ("budget</li>" in text) == bool(limits)
    assert allowed is None or allowed in Page(text).text
    # Along the front cost and accuracy both rise.
    measure = limits[0].measure if limits else "macs"
    members = pareto_front(candidates, measure)
    costs, where = [candidates[n].cost(measure) for n in members], [spots(text)[n] for n in members]
    assert costs == sorted(costs)
    assert [float(x[:-1]) for x, _ in where] == sorted(float(x[:-1]) for x, _ in where)


@pytest.mark.parametrize("budget", [9_000_000, 100_000_000])
def test_a_wide_budget_does_not_squeeze_the_dots(budget: int) -> None:
    text = render_report(replace(FULL, budget_macs=budget))
    x = {number: float(place[0][:-1]) for number, place in spots(text).items()}
    assert x[0] - x[3] > 60
    assert ("lies beyond the axis" in text) == ('class="budget"' not in text) == (budget > 12_000_000)


def test_a_collapsed_training_does_not_flatten_the_chart() -> None:
    collapsed = replace(WORSE, number=6, accuracy=10.0)
    text = render_report(study(BASE, POOLED, PLAIN, CHEAP, WORSE, collapsed, best=1))
    where = {number: float(y[:-1]) for number, (_, y) in spots(text).items()}
    assert where[6] == 100.0
    assert where[4] - where[1] > 20
    assert "1 candidate below the axis" in Page(text).text
    assert lowest_shown([10.0, 97.0, 98.0], [10.0]) == 10.0  # a member of the front is never cut off


def test_those_stopped_early_are_faint_in_the_chart() -> None:
    collapsed = replace(STOPPED, number=7, accuracy=30.0)
    text = render_report(replace(RICH, candidates=(*FULL.candidates, STOPPED, collapsed)))
    assert re.search(r'<a class="dot pooled stopped" id="dot-6"', text)
    assert "candidate 6: stopped early at 96.00 %" in text
    assert 7 not in spots(text)
    assert "1 candidate stopped early, off the axes, not drawn." in text
    assert "</svg>stopped early</li>" in text
    assert "</svg>stopped early</li>" not in render_report(FULL)


def test_the_gap_between_the_fronts_is_what_pooling_buys() -> None:
    text = render_report(FULL)
    where = spots(text)
    lines = re.findall(r'<line class="plain" x1="(\S+)" y1="(\S+)"', text)
    assert lines[0] == where[2]
    # The base is over the budget, so it is on no front.
    assert where[0] not in lines
    (area,) = re.findall(r'<rect class="gap" x="(\S+)" y="(\S+)" width="([\d.]+)%" height="([\d.]+)%"', text)
    assert area[:2] == where[1]
    assert float(area[1][:-1]) + float(area[3]) == pytest.approx(float(where[2][1][:-1]), abs=0.01)
    budget = re.search(r'<line class="budget" x1="([\d.]+)%"', text)
    assert budget is not None
    assert float(area[0][:-1]) + float(area[2]) == pytest.approx(float(budget[1]), abs=0.01)
    page = Page(text).text
    assert "at equal cost, up to +1.12 points;" in page
    for label in ("front of all", "front without pools", "higher with pools"):
        assert label in page


@pytest.mark.parametrize(
    ("candidates", "most"),
    [
        ((), 0.0),
        ((BASE,), 0.0),
        ((BASE, PLAIN), 0.0),
        ((BASE, CHEAP), 0.0),  # nothing without pools is as cheap
        ((BASE, PLAIN, WORSE), 0.0),
        ((BASE, PLAIN, POOLED), 1.125),
        ((BASE, replace(PLAIN, macs=6_000_000), POOLED), 0.0),
        ((BASE, PLAIN, replace(STOPPED, accuracy=99.0)), 0.0),
        ((BASE, PLAIN, replace(POOLED, accuracy=NAN)), 0.0),
    ],
)
def test_what_pooling_buys_at_equal_cost(candidates: tuple[Candidate, ...], most: float) -> None:
    steps = find_gap(finite_only(study(*candidates)), 5_600_000)
    assert max((high - low for _, _, low, high in steps), default=0.0) == most


@pytest.mark.parametrize(
    ("candidates", "dots"),
    [
        ((BASE,), 1),
        ((replace(BASE, accuracy=100.0),), 1),
        ((replace(BASE, accuracy=0.0),), 1),
        ((replace(BASE, macs=5_600_000),), 1),
        ((BASE, replace(PLAIN, accuracy=97.5), replace(POOLED, accuracy=97.5)), 3),
        ((replace(BASE, macs=5_600_000), replace(PLAIN, macs=5_600_000)), 2),
        ((BASE, replace(PLAIN, accuracy=float("nan"))), 1),
        ((BASE, FAILED), 1),
        ((FAILED,), 0),
        ((replace(BASE, macs=0),), 1),
        ((BASE, replace(PLAIN, accuracy=97.5 + 1e-9)), 2),
        ((BASE, replace(CHEAP, pools=("stem", "blocks.1"))), 2),
    ],
)
def test_degenerate_studies_render(candidates: tuple[Candidate, ...], dots: int) -> None:
    text = render_report(study(*candidates))
    assert len(Page(text).having("tr", "row")) == len(candidates)
    found = spots(text)
    assert len(found) == dots
    assert all(0 <= float(value[:-1]) <= 100 for spot in found.values() for value in spot)
    assert not re.search(r'="-?(nan|inf)', text)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 10.0, ["0", "2", "4", "6", "8", "10"]),
        (96.9, 98.3, ["97.00", "97.25", "97.50", "97.75", "98.00", "98.25"]),
        (2.3095, 2.3405, ["2.31", "2.32", "2.33", "2.34"]),
    ],
)
def test_ticks_are_round(low: float, high: float, labels: list[str]) -> None:
    assert [label for _, label in ticks(low, high)][: len(labels)] == labels
