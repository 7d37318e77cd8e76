"""The HTML report: what it shows, that nothing escapes its quotes, and that a browser runs it."""

import html
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cp_vision.search.outputs.report.axis import ticks
from cp_vision.search.outputs.report.chart import lowest_shown
from cp_vision.search.outputs.report.format import count, milliseconds, points
from cp_vision.search.outputs.report.fronts import find_gap
from cp_vision.search.outputs.report.page import render_report, write_report
from cp_vision.search.outputs.report.sensitivity import render_sensitivity_svg
from cp_vision.search.outputs.report.strips import stage_of
from cp_vision.search.selection import pareto_front
from cp_vision.search.types import BlockCost, Candidate, Limit, Results

VOID = {"meta", "br", "img", "link", "input", "hr", "wbr"}
BLOCKS = tuple(BlockCost(f"blocks.{i}", 1_000_000, 9_000, droppable=i > 0) for i in range(8))
BASE = Candidate(0, (), (), 8_000_000, 260_000, 97.5, within_budget=False)
POOLED = Candidate(1, ("blocks.2",), ("blocks.5", "blocks.6", "blocks.7"), 5_009_000, 170_000, 98.125)
PLAIN = Candidate(2, (), ("blocks.4", "blocks.5", "blocks.6"), 5_000_000, 169_000, 97.0)
CHEAP = Candidate(3, ("blocks.1",), tuple(f"blocks.{i}" for i in range(3, 8)), 3_009_000, 99_000, 95.0)
WORSE = Candidate(4, ("blocks.3",), ("blocks.4", "blocks.5", "blocks.6"), 5_009_000, 170_000, 94.0)
FAILED = Candidate(5, (), ("blocks.1",), 7_000_000, 220_000, None, "failed", "the loss became NaN")
STOPPED = Candidate(6, ("blocks.1",), ("blocks.2", "blocks.3"), 5_500_000, 180_000, 96.0, "stopped")


def study(*candidates: Candidate, **changes: Any) -> Results:
    results = Results(
        base="test_vit2",
        dataset="torch/cifar10",
        recipe="short.yaml",
        command="cp-search test_vit2 --budget 0.7x --seed 3",
        seed=3,
        budget="0.7x",
        budget_macs=5_600_000,
        base_macs=8_000_000,
        blocks=BLOCKS,
        candidates=candidates,
    )
    return replace(results, **changes)


FULL = study(
    BASE,
    POOLED,
    PLAIN,
    CHEAP,
    WORSE,
    FAILED,
    best=1,
    best_drops_only=2,
    test_accuracy={0: 97.2, 1: 97.9, 2: 96.4},
)
# Everything that a search can have found.
RICH = replace(
    FULL,
    candidates=(*FULL.candidates, STOPPED),
    limits=(
        Limit("macs", "0.7x", 5_600_000, 8_000_000),
        Limit("params", "0.8x", 208_000, 260_000),
        Limit("latency", "12ms", 12.0, 15.0),
    ),
    importance={"blocks.2": 0.5, "mode": 0.3, "blocks.0": 0.2},
    sensitivity={f"blocks.{i}": loss for i, loss in enumerate((60.0, 2.5, 1.5, -0.25, 0.5, 1.0, 2.0, 0.75)) if i > 0},
    measured_latency={0: 4.0, 1: 3.2, 2: 2.5},
    commands={"Go on": "cp-search resume runs/x --trials 80", "Score the winner": "cp-train recipe --eval best"},
)
SHARED = replace(
    RICH,
    candidates=(
        replace(BASE, accuracy=92.0, trained=97.5),
        replace(POOLED, accuracy=93.5, trained=98.125),
        replace(PLAIN, accuracy=93.0, trained=97.0),
        replace(CHEAP, accuracy=91.0),
    ),
    evaluator="supernet",
    agreement=1 / 3,
)


class Page(HTMLParser):
    """Tags with their attributes, and the text; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def having(self, tag: str, cls: str) -> list[dict[str, str]]:
        return [a for name, a in self.tags if name == tag and cls in a.get("class", "").split()]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def parse_svg(text: str) -> ElementTree.Element:
    """The root of a picture that is well-formed XML."""
    return ElementTree.fromstring(text)  # noqa: S314


def spots(text: str) -> dict[int, tuple[str, str]]:
    """Where each dot of the chart lies."""
    found = re.findall(r'<a class="dot [^>]*id="dot-(\d+)"[^>]*>.*?<svg x="([\d.]+%)" y="([\d.]+%)"', text)
    return {int(number): (x, y) for number, x, y in found}


def test_headline_names_which_accuracy_is_which() -> None:
    text = Page(render_report(FULL)).text
    assert "98.1 % at 0.63x the MACs of test_vit2" in text
    assert "98.12 % validation accuracy and 97.90 % test accuracy on torch/cifar10" in text
    assert "What pooling buys: +1.12 points of validation accuracy (+1.50 points of test accuracy)" in text
    assert "at 0.63x against 0.62x MACs" in text


def test_test_accuracy_is_shown_only_where_measured() -> None:
    text = Page(render_report(replace(FULL, test_accuracy={}))).text
    assert "test accuracy" not in text
    assert "not measured" in Page(render_report(replace(FULL, test_accuracy={1: 97.9}))).text


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        (study(BASE, POOLED, best=1), "not known: no architecture without pools is"),
        (study(replace(BASE, within_budget=True), POOLED, best=1), "the winner against the base, #0."),
        (
            study(BASE, PLAIN, WORSE, best=2, best_drops_only=2),
            "No pooling won: the best pooled candidate, #4",
        ),
        (study(BASE, PLAIN, WORSE, best=2, best_drops_only=2), "\N{MINUS SIGN}3.00 points"),
        (study(BASE, PLAIN, best=2, best_drops_only=2), "no pooled candidate within the budget is complete"),
        (study(BASE, PLAIN, best=2, best_drops_only=2), "winner and best drops-only #2"),
        (
            study(replace(BASE, within_budget=True), budget="1x", budget_macs=8_000_000, best=0),
            "winner and base #0",
        ),
        (
            study(BASE, PLAIN, CHEAP, best=3, best_drops_only=2),
            "\N{MINUS SIGN}2.00 points of validation accuracy",
        ),
        (study(BASE), "Nothing within the budget of 0.7x is complete yet"),
        (study(BASE, FAILED, best=5), "Nothing within the budget of 0.7x is complete yet"),
        (study(replace(BASE, state="failed", accuracy=None, reason="no memory")), "nothing to draw"),
        (study(), "No candidate has been trained yet."),
    ],
)
def test_says_what_was_not_found(results: Results, sentence: str) -> None:
    assert sentence in Page(render_report(results)).text


def test_dots_and_strips_match_the_candidates() -> None:
    text = render_report(FULL)
    page = Page(text)
    rows = page.having("tr", "row")
    assert [int(row["data-n"]) for row in rows] == [1, 0, 2, 3, 4, 5]  # by accuracy, the failed one last
    assert sorted(spots(text)) == [0, 1, 2, 3, 4]
    in_rows = text[text.index('<tr class="row') : text.index('id="costs"')]
    assert in_rows.count('<i class="') == len(BLOCKS) * len(FULL.candidates)
    row = in_rows[in_rows.index('id="row-1"') :].split("</tr>")[0]
    assert re.findall(r'<i class="(\w)"', row) == list("kkpkkddd")
    assert 'title="blocks.2: pooled, 1.00 M + 9.00 K MACs"' in row
    assert "the loss became NaN" in page.text
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [a["href"] for tag, a in page.tags if tag == "a"]
    assert targets
    assert {target.removeprefix("#") for target in targets} <= set(ids)


def test_marks_winner_base_front_and_budget() -> None:
    rows = render_report(FULL).split('<tr class="row ')
    badges = {row[row.index("row-") + 4]: re.findall(r'badge \w+">([^<]+)', row) for row in rows[1:]}
    assert badges["1"] == ["winner", "front"]
    assert badges["0"] == ["base", "over budget"]
    assert badges["2"] == ["best drops-only", "front"]
    assert badges["3"] == ["front"]
    assert badges["4"] == badges["5"] == []


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


def test_chart_keeps_order_and_budget() -> None:
    text = render_report(FULL)
    where = {number: (float(x[:-1]), float(y[:-1])) for number, (x, y) in spots(text).items()}
    assert where[3][0] < where[2][0] < where[1][0] < where[0][0]
    assert where[1][1] < where[0][1] < where[2][1] < where[3][1] < where[4][1]  # down is less accurate
    edge = re.search(r'<line class="budget" x1="([\d.]+)%"', text)
    assert edge is not None
    assert where[1][0] < float(edge[1]) < where[0][0]
    assert "budget 0.7x</text>" in text


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


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "changes",
    [
        {"base_macs": 0},
        {"budget_macs": 0},
        {"budget_macs": 1},
        {"budget_macs": 10**15},
        {"budget_macs": None, "limits": ()},
        {"blocks": ()},
        {"best": 99},
        {"best": 6},
        {"command": ""},
        {"keep_accuracy": NAN},
        {"keep_accuracy": 0.0},
        {"agreement": NAN},
        {"test_accuracy": {0: NAN, 1: INF}},
        {"importance": {"blocks.1": NAN, "blocks.2": 0.0}},
        {"importance": {"no such site": 1.0}},
        {"sensitivity": {"blocks.1": NAN, "blocks.2": INF}},
        {"sensitivity": {"blocks.1": 0.0}},
        {"sensitivity": {"no such block": 1.0, "blocks.1": -1.0}},
        {"measured_latency": {0: NAN, 1: 3.0, 77: 1.0}},
        {"measured_latency": {0: 0.0, 1: 3.0, 2: 1e-9}},
        {"limits": (Limit("latency", "1ms", NAN, INF), Limit("macs", "0x", 0.0, 0.0))},
        {"candidates": ()},
        {"candidates": (FAILED,)},
        {"candidates": (STOPPED,)},
        {"candidates": (BASE, replace(STOPPED, accuracy=None))},
        {"candidates": (BASE, replace(STOPPED, accuracy=NAN))},
        {"candidates": (BASE, replace(PLAIN, accuracy=INF), POOLED)},
        {"candidates": (replace(BASE, trained=NAN, latency=NAN), replace(POOLED, trained=INF))},
        {"candidates": (replace(BASE, accuracy=0.0), replace(PLAIN, accuracy=1e-20))},
        {"candidates": (replace(BASE, seconds=NAN),)},
    ],
)
@pytest.mark.parametrize("evaluator", ["train", "supernet", "sensitivity"])
def test_odd_studies_render(changes: dict[str, Any], evaluator: str) -> None:
    results = replace(RICH, evaluator=evaluator, **changes)
    text = render_report(results)
    page = Page(text)
    assert not re.search(r'="-?(nan|inf)', text)
    assert not re.search(r"\b(nan|inf)\b", page.text)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for tag, a in page.tags if tag == "a"} <= set(ids)
    parse_svg(render_sensitivity_svg(results))


def test_a_pool_outside_the_blocks_has_its_own_cell() -> None:
    text = render_report(study(BASE, replace(CHEAP, pools=("stem",))))
    assert 'title="stem: pooled"' in text
    assert "other sites (1 site)" in Page(text).text


def test_a_collapsed_training_does_not_flatten_the_chart() -> None:
    collapsed = replace(WORSE, number=6, accuracy=10.0)
    text = render_report(study(BASE, POOLED, PLAIN, CHEAP, WORSE, collapsed, best=1))
    where = {number: float(y[:-1]) for number, (_, y) in spots(text).items()}
    assert where[6] == 100.0
    assert where[4] - where[1] > 20
    assert "1 candidate below the axis" in Page(text).text
    assert lowest_shown([10.0, 97.0, 98.0], [10.0]) == 10.0  # a member of the front is never cut off


def rows_of(text: str) -> dict[int, str]:
    """The rows of the strips by number, in their order."""
    rows = text[text.index('<tr class="row') : text.index('id="costs"')].split('<tr class="row ')[1:]
    found = [re.search(r'id="row-(\d+)"', row) for row in rows]
    return {int(match[1]): row for match, row in zip(found, rows, strict=True) if match is not None}


def test_every_budget_is_told_in_its_unit() -> None:
    text = Page(render_report(RICH)).text
    assert "Budget: 5.60 M MACs (0.70x), 208 K parameters (0.80x), 12.0 ms (0.80x)." in text
    for part in (
        "0.7x (5.60 M of 8.00 M MACs)",
        "0.8x (208 K of 260 K parameters)",
        "12ms (12.0 of 15.0 ms)",
    ):
        assert f"budget{part}" in text


def test_without_a_budget_of_macs_there_is_no_line() -> None:
    text = render_report(replace(RICH, budget="params=0.8x", budget_macs=None, limits=RICH.limits[1:2]))
    assert not re.search('class="(budget|budget-label|over)"', text)
    assert "budget</li>" not in text
    assert "208 K parameters" in Page(text).text


@pytest.mark.parametrize("budget", [9_000_000, 100_000_000])
def test_a_wide_budget_does_not_squeeze_the_dots(budget: int) -> None:
    text = render_report(replace(FULL, budget_macs=budget))
    x = {number: float(place[0][:-1]) for number, place in spots(text).items()}
    assert x[0] - x[3] > 60
    assert ("lies beyond the axis" in text) == ('class="budget"' not in text) == (budget > 12_000_000)


def test_over_budget_is_what_the_search_says() -> None:
    heavy = replace(PLAIN, within_budget=False)
    rows = rows_of(render_report(replace(FULL, candidates=(replace(BASE, within_budget=True), POOLED, heavy))))
    assert ["over budget" in rows[number] for number in (0, 1, 2)] == [False, False, True]


def test_those_stopped_early_come_after_the_complete_ones() -> None:
    late = replace(STOPPED, number=7, accuracy=99.0)
    unknown = replace(STOPPED, number=8, accuracy=None)
    results = replace(RICH, candidates=(*FULL.candidates, STOPPED, late, unknown), best=7, best_drops_only=None)
    text = render_report(results)
    rows = rows_of(text)
    assert list(rows) == [1, 0, 2, 3, 4, 7, 6, 8, 5]
    assert "partial</small> 96.00 %" in rows[6]
    assert "unknown" in rows[8]
    for number in (6, 7, 8):
        assert re.findall(r'badge \w+">([^<]+)', rows[number]) == ["stopped early"]
        assert 'href="#dot-' not in rows[number]
    assert "Nothing within the budget of 0.7x is complete yet" in text
    assert "9, of which 3 stopped early and 1 failed" in Page(text).text


def test_those_stopped_early_are_faint_in_the_chart() -> None:
    collapsed = replace(STOPPED, number=7, accuracy=30.0)
    text = render_report(replace(RICH, candidates=(*FULL.candidates, STOPPED, collapsed)))
    assert re.search(r'<a class="dot pooled stopped" id="dot-6"', text)
    assert "candidate 6: stopped early at 96.00 %" in text
    assert 7 not in spots(text)
    assert "1 candidate stopped early, off the axes, not drawn." in text
    assert "</svg>stopped early</li>" in text
    assert "</svg>stopped early</li>" not in render_report(FULL)


@pytest.mark.parametrize(
    ("keep", "best", "sentence"),
    [
        (0.5, 1, "98.1 %, within 0.5 points of the base at 0.63x its MACs"),
        (1.0, 2, "97.0 %, within 1 point of the base at 0.62x its MACs"),
        (0.0, 1, "98.1 %, as accurate as the base at 0.63x its MACs"),
        (0.25, 2, "97.0 % at 0.62x the MACs of test_vit2"),
        (0.25, 2, "None within the budget is within 0.25 points of the base, so the most accurate won."),
        (0.5, 0, "Nothing cheaper than test_vit2 is within 0.5 points of the base"),
        (0.5, None, "Nothing within the budget of 0.7x is complete yet"),
        (0.5, 1, "What pooling buys: 0.63x against 0.62x MACs, at +1.12 points of validation accuracy"),
        (0.5, 1, "accuracy to keep0.5 points"),
        (0.5, 1, "0.5 points below the base"),
    ],
)
def test_the_cheapest_that_keeps_the_accuracy(keep: float, best: int | None, sentence: str) -> None:
    assert sentence in Page(render_report(replace(FULL, keep_accuracy=keep, best=best))).text


def test_the_gap_between_the_fronts_is_what_pooling_buys() -> None:
    text = render_report(FULL)
    where = spots(text)
    lines = re.findall(r'<line class="plain" x1="(\S+)" y1="(\S+)"', text)
    assert lines[0] == where[2]
    assert where[0] in lines
    (area,) = re.findall(r'<rect class="gap" x="(\S+)" y="(\S+)" width="([\d.]+)%" height="([\d.]+)%"', text)
    assert area[:2] == where[1]
    assert float(area[1][:-1]) + float(area[3]) == pytest.approx(float(where[2][1][:-1]), abs=0.01)
    budget = re.search(r'<line class="budget" x1="([\d.]+)%"', text)
    assert budget is not None
    assert float(area[0][:-1]) + float(area[2]) == pytest.approx(float(budget[1]), abs=0.01)
    page = Page(text).text
    assert "Shaded is what pooling buys: up to +1.12 points at equal MACs." in page
    for label in ("front of all", "front without pools", "what pooling buys"):
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
    assert find_gap(study(*candidates), 5_600_000).most == most


def test_a_smaller_image_alone_is_no_base() -> None:
    small = Candidate(7, (), (), 5_000_000, 260_000, 96.0, settings={"img_size": 192, "mode": "gated"})
    text = render_report(study(BASE, small))
    assert re.search('<a class="dot drops [^"]*" id="dot-7"', text)
    assert "(base)" not in rows_of(text)[7]
    assert "192 px" in rows_of(text)[7]
    assert "gated" not in rows_of(text)[7]  # it doesn't pool


def test_settings_are_told() -> None:
    chosen = {"mode": "pre_attn", "support_range": 0.25, "img_size": 192}
    text = render_report(study(BASE, replace(POOLED, settings=chosen), best=1))
    words = "pre_attn, support 0.25, 192 px"
    assert f'<small class="settings">{words}</small>' in rows_of(text)[1]
    assert f"; {words}</title>" in text
    assert f"<span>{words}</span>" in text


def test_what_mattered_is_sorted() -> None:
    text = render_report(RICH)
    section = text[text.index('id="importance"') :].split("</section>")[0]
    section = section.replace("<wbr>", "")
    names = re.findall(r'<span class="of">([^<]+?)(?: <small>([^<]*)</small>)?</span>', section)
    assert names == [("blocks.2", "pool or drop"), ("mode of the pools", ""), ("blocks.0", "pool")]
    assert re.findall(r'class="share">([^<]+)', section) == ["50 %", "30 %", "20 %"]
    assert 'id="importance"' not in render_report(FULL)


def test_what_hardly_mattered_is_folded() -> None:
    many = {f"blocks.{i}": 0.5**i for i in range(1, 30)}
    text = render_report(replace(RICH, importance=many))
    assert "<summary>17 others, under 1 % together</summary>" in text
    assert text.count('class="of"') == 29


def losses(text: str) -> list[tuple[str, float]]:
    """The bars of the picture of what is lost: words and heights in percent."""
    found = re.findall(r'<rect class="loss[^>]* height="([\d.]+)%"><title>([^<]+)', text)
    return [(words, float(height)) for height, words in found]


def test_what_is_lost_without_each_block() -> None:
    shuffled = dict(sorted(RICH.sensitivity.items(), key=lambda item: item[1]))
    bars = losses(render_report(replace(RICH, sensitivity=shuffled)))
    assert [re.findall(r"blocks\.\d", words)[0] for words, _ in bars] == [f"blocks.{i}" for i in range(1, 8)]
    assert bars[0][0] == "without blocks.1 the base loses 2.50 points"
    assert bars[2][0] == "without blocks.3 the base gains 0.25 points"
    assert bars[4][0] == "without blocks.5 the base loses 1.00 points; the winner leaves it out"
    heights = [height for _, height in bars]
    assert heights[0] > heights[5] > heights[1] > heights[4]
    text = Page(render_report(RICH)).text
    assert "The base misses blocks.3 least (\N{MINUS SIGN}0.2) and blocks.1 most (2.5)." in text
    assert "\N{MINUS SIGN}2.50" in text  # the same in the table of costs
    assert 'id="sensitivity"' not in render_report(FULL)


def test_a_block_that_nothing_works_without_is_cut() -> None:
    text = render_report(replace(RICH, sensitivity={"blocks.0": 60.0, **RICH.sensitivity}))
    assert text.count('<line class="cut"') == 1
    assert "A bar that is cut reaches further." in text
    heights = [height for _, height in losses(text)]
    assert heights[0] < 3 * heights[1]
    assert '<line class="cut"' not in render_report(RICH)


def test_the_picture_of_losses_stands_alone() -> None:
    text = render_sensitivity_svg(RICH)
    root = parse_svg(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert losses(text) == losses(render_report(RICH))
    assert "What test_vit2 loses without each block" in text
    assert "var(" not in text
    assert "Nothing was measured." in render_sensitivity_svg(FULL)


def test_cost_against_measured_latency() -> None:
    text = render_report(RICH)
    assert sorted(re.findall(r'id="time-(\d)"', text)) == ["0", "1", "2"]
    page = Page(text).text
    assert (
        "An image takes the winner 3.20 ms and the base 4.00 ms: 312 images a second against 250, "
        "1.25x the base's speed for 0.63x its MACs." in page
    )
    assert "winner 3.20 ms" in page
    assert "base 4.00 ms" in page
    assert "5.01 M MACs, 0.63x, 3.20 ms; pools" in text
    places = dict(re.findall(r'id="time-(\d)".*?<svg x="[\d.]+%" y="([\d.]+)%"', text))
    assert float(places["0"]) < float(places["1"]) < float(places["2"])


@pytest.mark.parametrize("times", [{}, {0: 4.0}, {0: 4.0, 1: NAN}, {0: 4.0, 99: 3.0}, {0: 4.0, 1: -1.0}])
def test_without_two_times_there_is_no_picture_of_them(times: dict[int, float]) -> None:
    assert 'id="latency"' not in render_report(replace(RICH, measured_latency=times))


def test_a_predicted_time_is_marked_as_such() -> None:
    text = Page(render_report(study(BASE, replace(POOLED, latency=3.5), best=1))).text
    assert "3.50 ms predicted" in text


def test_shared_weights_are_named() -> None:
    text = render_report(SHARED)
    page = Page(text).text
    for part in (
        "98.1 % at 0.63x the MACs of test_vit2",
        "98.12 % validation accuracy and 97.90 % test accuracy on torch/cifar10, trained by itself "
        "(93.50 % with shared weights)",
        "validation accuracy with shared weights, %",
        "93.5 %, trained 98.1 %",
        "candidate 1 (winner): 93.50 % with shared weights, 98.12 % after a training of its own",
        "rank the 3 finalists with a Kendall's tau of 0.33",
        "What pooling buys: +1.12 points of validation accuracy (+1.50 points of test accuracy)",
    ):
        assert part in page
    rows = rows_of(text)
    assert list(rows) == [1, 0, 2, 3]
    assert '<td class="num acc">93.50 %</td><td class="num own">98.12 %</td>' in rows[1]
    assert '<td class="num own"></td>' in rows[3]


def test_shared_weights_alone_are_compared_with_shared_weights() -> None:
    untrained = tuple(replace(c, trained=None) for c in SHARED.candidates)
    page = Page(render_report(replace(SHARED, candidates=untrained, agreement=None, test_accuracy={}))).text
    assert "93.5 % with shared weights at 0.63x the MACs of test_vit2" in page
    assert "with shared weights: it was not trained by itself yet" in page
    assert "+0.50 points of validation accuracy with shared weights" in page
    assert "Kendall" not in page


@pytest.mark.parametrize("candidates", [(), (BASE,), (BASE, PLAIN)])
def test_untrained_nothing_wins(candidates: tuple[Candidate, ...]) -> None:
    results = study(*candidates, evaluator="sensitivity", sensitivity=RICH.sensitivity, best=2, best_drops_only=2)
    text = render_report(results)
    page = Page(text).text
    assert "test_vit2 misses blocks.3 least: +0.25 points without it, untrained" in page
    assert "Nothing was trained" in page
    assert "winner" not in page.replace("which chose the winner", "")
    assert 'id="baselines"' not in text
    assert len(losses(text)) == 7


def test_commands_are_listed() -> None:
    text = render_report(RICH)
    foot = text[text.index("<footer>") :]
    commands = re.findall(r"<h3>([^<]*)</h3><pre[^>]*><code>([^<]*)</code>", foot)
    assert commands == [("The whole study", RICH.command), *RICH.commands.items()]
    assert "The whole study" not in render_report(replace(RICH, command=""))


def test_stems_and_down_samplings_stay() -> None:
    blocks = (
        BlockCost("maxpool", 0, 5_000, droppable=False),
        BlockCost("layer1.0", 1_000_000, 9_000, droppable=False, poolable=False),
        BlockCost("layer2.0.downsample", 0, -30_000, droppable=False),
        BlockCost("layer2.0", 2_000_000, 8_000, droppable=True),
    )
    pooled = replace(CHEAP, pools=("layer2.0.downsample", "layer2.0"), drops=())
    text = render_report(study(BASE, pooled, blocks=blocks))
    row = rows_of(text)[3]
    assert re.findall(r'<i class="([^"]+)" title="([^"]+)"', row) == [
        ("k stays", "maxpool: kept"),
        ("k", "layer1.0: kept, 1.00 M MACs"),
        ("p stays", "layer2.0.downsample: pooled, \N{MINUS SIGN}30.0 K MACs"),
        ("p", "layer2.0: pooled, 2.00 M + 8.00 K MACs"),
    ]
    page = Page(text)
    assert "layer2 (2 sites)" in page.text
    assert "stem or down-sampling, as it was" in page.text
    costs = text[text.index('id="costs"') :]
    assert re.findall(r"<td>(yes|no)</td>", costs) == ["yes", "no", "no", "no", "yes", "no", "yes", "yes"]
    assert "\N{MINUS SIGN}30.0 K" in costs


SVG_TAGS = {"svg", "title", "desc", "style", "rect", "text", "line"}
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


def test_hostile_names_stay_text() -> None:
    block = BlockCost(HOSTILE, 1_000, 10, droppable=True)
    other = BlockCost(f"{HOSTILE}.downsample", 0, -10, droppable=False)
    results = study(
        replace(BASE, accuracy=97.0, settings={HOSTILE: HOSTILE}),
        replace(POOLED, pools=(HOSTILE,), drops=("</title><b>",), settings={"mode": HOSTILE}),
        replace(FAILED, reason=HOSTILE),
        base=HOSTILE,
        dataset=HOSTILE,
        recipe=HOSTILE,
        command=f"cp-search {HOSTILE}",
        budget=HOSTILE,
        blocks=(block, other),
        best=1,
        limits=(Limit("macs", HOSTILE, 5_600_000, 8_000_000),),
        importance={HOSTILE: 0.5, f"{HOSTILE}2": 0.5},
        sensitivity={HOSTILE: 1.0},
        measured_latency={0: 4.0, 1: 3.0},
        commands={HOSTILE: HOSTILE},
    )
    drawn = parse_svg(render_sensitivity_svg(results))
    assert {element.tag.rpartition("}")[2] for element in drawn.iter()} <= SVG_TAGS
    text = render_report(results)
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag in ("img", "link", "iframe")]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 16


def test_page_refers_to_nothing_outside() -> None:
    text = render_report(RICH)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text
    for tag, attrs in Page(text).tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert "src" not in attrs
        assert attrs.get("href", "#").startswith("#")


def test_footer_tells_how_to_repeat_it() -> None:
    text = Page(render_report(FULL)).text
    for part in (
        "cp-search test_vit2 --budget 0.7x --seed 3",
        "recipeshort.yaml",
        "seed3",
        "0.7x (5.60 M of 8.00 M MACs)",
        "MACs: one multiply-add counts one, the figure papers print as FLOPs.",
    ):
        assert part in text


def test_write_is_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(FULL, path)
    assert path.read_text(encoding="utf-8") == render_report(FULL)
    assert os.listdir(tmp_path) == ["report.html"]


def test_failed_write_keeps_what_is_there(tmp_path: Path) -> None:
    # A folder of that name can't be replaced by a file.
    path = tmp_path / "report.html"
    (path / "old").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_report(FULL, path)
    assert os.listdir(tmp_path) == ["report.html"]
    assert os.listdir(path) == ["old"]


def test_names_that_are_no_unicode_are_written(tmp_path: Path) -> None:
    write_report(replace(FULL, dataset="folder/\udcff"), tmp_path / "report.html")
    assert "folder/?" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999_499, "999 K"),
        (999_999, "1.00 M"),
        (9_996_000, "10.0 M"),
        (4.089e9, "4.09 G"),
        (-30_000_000, "\N{MINUS SIGN}30.0 M"),
        (float("nan"), "?"),
    ],
)
def test_counts_have_three_digits(value: float, text: str) -> None:
    assert count(value) == text


def test_times_have_three_digits() -> None:
    assert [milliseconds(time) for time in (0.5, 9.996, 123.4)] == ["0.50 ms", "10.0 ms", "123 ms"]


def test_points_are_signed() -> None:
    assert [points(d) for d in (1.25, -0.5, 0.001)] == [
        "+1.25 points",
        "\N{MINUS SIGN}0.50 points",
        "0.00 points",
    ]


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


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("blocks.5", "blocks"),
        ("layer3.1", "layer3"),
        ("stages.2.blocks.4", "stages.2"),
        ("s1.b1", "s1"),
        ("stem", "stem"),
    ],
)
def test_stage_of_a_block(name: str, stage: str) -> None:
    assert stage_of(name) == stage


def test_a_down_sampling_is_of_the_stage_of_its_block() -> None:
    assert stage_of("layer2.0.downsample", {"layer2.0"}) == "layer2"
    assert stage_of("stages.1.downsample", {"stages.1.blocks.0"}) == "stages.1"


def dump_dom(path: Path, profile: Path, *more: str) -> str:
    """The page's DOM after its script has run in Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", *more, "--dump-dom"]
    done = subprocess.run([browser, *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def write_with_script(results: Results, path: Path, script: str) -> None:
    """Write the report with a script of the test's in it, which its policy would refuse."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render_report(results))
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")


@pytest.mark.parametrize(("results", "dots"), [(RICH, 6), (SHARED, 4)], ids=["trained", "shared"])
def test_a_browser_runs_the_page(results: Results, dots: int, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(results, path)
    dom = dump_dom(path, tmp_path / "profile")
    assert re.search(r'<html[^>]* data-report="ready"', dom)
    assert len(re.findall(r'<tr class="row ', dom)) == len(results.candidates)
    assert len(spots(dom)) == dots
    assert dom.count(">Copy</button>") == 1 + len(results.commands)


def test_pointing_at_a_dot_shows_its_strip(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    point = "document.querySelector('#dot-3 .halo').dispatchEvent(new Event('pointerover', {bubbles: true}))"
    write_with_script(RICH, path, point)
    dom = dump_dom(path, tmp_path / "profile")
    assert re.search(r'<tr class="row complete hot" id="row-3"', dom)
    assert re.search(r'<a class="dot [^"]*hot" id="dot-3"', dom)
    readout = dom[dom.index('id="readout"') :].split("</section>")[0]
    assert "candidate 3: 95.00 %" in readout
    assert re.findall(r'<i class="(\w)"', readout) == list("kpkddddd")


def test_a_command_is_copied_or_at_least_selected(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    script = """
    const button = document.querySelectorAll(".command button")[1];
    button.click();
    setTimeout(() => { document.body.dataset.said = button.textContent; }, 500);
    """
    write_with_script(RICH, path, script)
    dom = dump_dom(path, tmp_path / "profile", "--virtual-time-budget=1000")
    said = re.search(r'data-said="(\w+)"', dom)
    assert said is not None
    assert said[1] in ("Copied", "Selected")


DEEP = tuple(BlockCost(f"layer3.{i}", 1_000_000, 9_000, droppable=True) for i in range(50))


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("results", [SHARED, replace(RICH, blocks=DEEP)], ids=["shared", "deep"])
def test_nothing_sticks_out_of_the_page(results: Results, width: int, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    script = "parent.document.body.dataset.width = `${innerWidth} ${document.documentElement.scrollWidth}`"
    write_with_script(results, path, script)
    # In a frame, as a window of Chromium's is never narrower than 500 pixels.
    frame = f'<iframe width="{width}" height="900" srcdoc="{html.escape(path.read_text(encoding="utf-8"))}"></iframe>'
    path.write_text(f"<!DOCTYPE html><body>{frame}</body>", encoding="utf-8")
    dom = dump_dom(path, tmp_path / "profile", "--window-size=1400,1000")
    found = re.search(r'data-width="(\d+) (\d+)"', dom)
    assert found is not None
    assert int(found[1]) == width
    assert int(found[2]) <= width
