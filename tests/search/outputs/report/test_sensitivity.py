"""What the base loses without each block: in the page, and as a picture of its own."""

import re
from dataclasses import replace

from report_examples import FULL, RICH, Page, losses, parse_svg

from cp_vision.search.outputs.report.page import render_report, render_sensitivity_svg


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
