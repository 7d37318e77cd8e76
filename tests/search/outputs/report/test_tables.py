"""What mattered, the foot of the page, and how numbers are worded."""

import re
from dataclasses import replace

import pytest
from report_examples import FULL, RICH, Page

from cp_vision.search.outputs.report.page import render_report
from cp_vision.search.outputs.report.words import count, milliseconds, points


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


def test_commands_are_listed() -> None:
    text = render_report(RICH)
    foot = text[text.index("<footer>") :]
    commands = re.findall(r"<h3>([^<]*)</h3><pre[^>]*><code>([^<]*)</code>", foot)
    assert commands == [("The whole study", RICH.command), *RICH.commands.items()]
    assert "The whole study" not in render_report(replace(RICH, command=""))


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
