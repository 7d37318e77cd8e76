"""The page as a whole: odd studies render, nothing escapes its quotes, it refers to nothing outside."""

import base64
import hashlib
import os
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from report_examples import BASE, FAILED, FULL, INF, NAN, PLAIN, POOLED, RICH, STOPPED, Page, parse_svg, study

from cp_vision.search.outputs.report.page import render_report, render_sensitivity_svg, write_report
from cp_vision.search.types import BlockCost, Limit


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
        {"test_accuracy": {0: {3: NAN}, 1: {3: INF, 4: 97.0}}},
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
        {"candidates": (replace(BASE, by_seed={3: NAN, 4: 97.0}, latency=NAN), replace(POOLED, by_seed={3: INF}))},
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
    assert not [word for word in page.words if re.search(r"\b(nan|inf)\b", word)]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for tag, a in page.tags if tag == "a"} <= set(ids)
    parse_svg(render_sensitivity_svg(results))


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


def test_templates_take_nothing_as_safe_but_what_is_our_own() -> None:
    folder = resources.files("cp_vision.search.outputs.report")
    templates = [path.read_text() for path in folder.iterdir() if path.name.endswith(".j2")]
    assert templates
    for text in templates:
        assert not re.search(r"\|\s*safe|autoescape", re.sub(r"(\"<wbr>\"|style|script)\|safe", "", text))


def test_its_policy_allows_its_own_script_alone() -> None:
    text = render_report(replace(RICH, base=HOSTILE))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (policy,) = [attrs["content"] for tag, attrs in Page(text).tags if tag == "meta" and "http-equiv" in attrs]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


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
