"""The HTML report: what it shows, that nothing escapes its quotes, and that a browser runs it."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cp_vision.search.report import render_report, write_report
from cp_vision.search.report_chart import lowest_shown, ticks
from cp_vision.search.report_format import count, points
from cp_vision.search.report_strips import stage_of
from cp_vision.search.results import BlockCost, Candidate, Results

VOID = {"meta", "br", "img", "link", "input", "hr"}
BLOCKS = tuple(BlockCost(f"blocks.{i}", 1_000_000, 9_000, droppable=i > 0) for i in range(8))
BASE = Candidate(0, (), (), 8_000_000, 260_000, 97.5)
POOLED = Candidate(1, ("blocks.2",), ("blocks.5", "blocks.6", "blocks.7"), 5_009_000, 170_000, 98.125)
PLAIN = Candidate(2, (), ("blocks.4", "blocks.5", "blocks.6"), 5_000_000, 169_000, 97.0)
CHEAP = Candidate(3, ("blocks.1",), tuple(f"blocks.{i}" for i in range(3, 8)), 3_009_000, 99_000, 95.0)
WORSE = Candidate(4, ("blocks.3",), ("blocks.4", "blocks.5", "blocks.6"), 5_009_000, 170_000, 94.0)
FAILED = Candidate(5, (), ("blocks.1",), 7_000_000, 220_000, None, "failed", "the loss became NaN")


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


def spots(text: str) -> dict[int, tuple[str, str]]:
    """Where each dot of the chart lies."""
    found = re.findall(r'<a class="dot [^>]*data-n="(\d+)">.*?<svg x="([\d.]+%)" y="([\d.]+%)"', text)
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
        (study(BASE, POOLED, best=1), "not known: no architecture that only drops blocks is complete"),
        (
            study(BASE, PLAIN, WORSE, best=2, best_drops_only=2),
            "No pooling won: the best pooled candidate, #4",
        ),
        (study(BASE, PLAIN, WORSE, best=2, best_drops_only=2), "\N{MINUS SIGN}3.00 points"),
        (study(BASE, PLAIN, best=2, best_drops_only=2), "no pooled candidate within the budget is complete"),
        (study(BASE, PLAIN, best=2, best_drops_only=2), "winner and best drops-only #2"),
        (study(BASE, budget="1x", budget_macs=8_000_000, best=0), "winner and base #0"),
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
    assert FULL.front == (3, 2, 1)
    places = [corners.index(spots(text)[number]) for number in FULL.front]
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


@pytest.mark.parametrize("changes", [{"base_macs": 0}, {"budget_macs": 0}, {"blocks": ()}, {"best": 99}])
def test_odd_studies_render(changes: dict[str, Any]) -> None:
    Page(render_report(replace(FULL, **changes)))


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


HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


def test_hostile_names_stay_text() -> None:
    block = BlockCost(HOSTILE, 1_000, 10, droppable=True)
    results = study(
        replace(BASE, accuracy=97.0),
        replace(POOLED, pools=(HOSTILE,), drops=("</title><b>",)),
        replace(FAILED, reason=HOSTILE),
        base=HOSTILE,
        dataset=HOSTILE,
        recipe=HOSTILE,
        command=f"cp-search {HOSTILE}",
        budget=HOSTILE,
        blocks=(block,),
        best=1,
    )
    text = render_report(results)
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag in ("img", "link", "iframe")]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 8


def test_page_refers_to_nothing_outside() -> None:
    text = render_report(FULL)
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
    ],
)
def test_counts_have_three_digits(value: float, text: str) -> None:
    assert count(value) == text


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


def dump_dom(path: Path, profile: Path) -> str:
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
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", "--dump-dom"]
    done = subprocess.run([browser, *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_a_browser_runs_the_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(FULL, path)
    dom = dump_dom(path, tmp_path / "profile")
    assert re.search(r'<html[^>]* data-report="ready"', dom)
    assert len(re.findall(r'<tr class="row ', dom)) == len(FULL.candidates)
    assert len(spots(dom)) == 5


def test_pointing_at_a_dot_shows_its_strip(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    point = "document.querySelector('#dot-3 .halo').dispatchEvent(new Event('pointerover', {bubbles: true}))"
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render_report(FULL))
    path.write_text(page.replace("</body>", f"<script>{point}</script></body>"), encoding="utf-8")
    dom = dump_dom(path, tmp_path / "profile")
    assert re.search(r'<tr class="row complete hot" id="row-3"', dom)
    assert re.search(r'<a class="dot [^"]*hot" id="dot-3"', dom)
    readout = dom[dom.index('id="readout"') :].split("</section>")[0]
    assert "candidate 3: 95.00 %" in readout
    assert re.findall(r'<i class="(\w)"', readout) == list("kpkddddd")
