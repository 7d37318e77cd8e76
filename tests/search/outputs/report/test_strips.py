"""The table of all candidates: a row each, a cell for each site."""

import re
from dataclasses import replace

import pytest
from report_examples import BASE, BLOCKS, CHEAP, FULL, PLAIN, POOLED, RICH, STOPPED, Page, rows_of, spots, study

from cp_vision.search.outputs.report.page import render_report
from cp_vision.search.outputs.report.strips import stage_of
from cp_vision.search.types import BlockCost, Candidate


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


def test_over_budget_is_what_the_search_says() -> None:
    heavy = replace(PLAIN, within_budget=False)
    rows = rows_of(render_report(replace(FULL, candidates=(replace(BASE, within_budget=True), POOLED, heavy))))
    assert ["over budget" in rows[number] for number in (0, 1, 2)] == [False, False, True]


def test_a_pool_outside_the_blocks_has_its_own_cell() -> None:
    text = render_report(study(BASE, replace(CHEAP, pools=("stem",))))
    assert 'title="stem: pooled"' in text
    assert "other sites (1 site)" in Page(text).text


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
