"""MACs against measured latency."""

from dataclasses import replace

import pytest
from report_examples import BASE, NAN, POOLED, RICH, Page, spots, study

from cp_vision.search.outputs.report.page import render_report


def test_cost_against_measured_latency() -> None:
    text = render_report(RICH)
    page = Page(text).text
    assert (
        "An image takes the winner 3.20 ms and the base 4.00 ms: 312 images a second against 250, "
        "1.25x the base's speed for 0.63x its MACs." in page
    )
    assert "winner 3.20 ms" in page
    assert "base 4.00 ms" in page
    assert "5.01 M MACs, 0.63x, 3.20 ms; pools" in text
    heights = {number: float(y[:-1]) for number, (_, y) in spots(text, "time").items()}
    assert sorted(heights) == [0, 1, 2]
    assert heights[0] < heights[1] < heights[2]


@pytest.mark.parametrize("times", [{}, {0: 4.0}, {0: 4.0, 1: NAN}, {0: 4.0, 99: 3.0}, {0: 4.0, 1: -1.0}])
def test_without_two_times_there_is_no_picture_of_them(times: dict[int, float]) -> None:
    assert 'id="latency"' not in render_report(replace(RICH, measured_latency=times))


def test_a_predicted_time_is_marked_as_such() -> None:
    text = Page(render_report(study(BASE, replace(POOLED, latency=3.5), best=1))).text
    assert "3.50 ms predicted" in text
