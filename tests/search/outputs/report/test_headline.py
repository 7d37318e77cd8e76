"""The top of the report: what was found, which accuracy is which, what pooling buys."""

from dataclasses import replace

import pytest
from report_examples import (
    BASE,
    FAILED,
    FULL,
    PLAIN,
    POOLED,
    RICH,
    SEEDED,
    SHARED,
    WORSE,
    Page,
    losses,
    rows_of,
    study,
)

from cp_vision.search.outputs.report.page import render_report
from cp_vision.search.types import Candidate, Results


def test_headline_names_which_accuracy_is_which() -> None:
    text = Page(render_report(FULL)).text
    assert "98.1 % at 0.63x the MACs of test_vit2, which has 97.5 %" in text
    assert "98.12 % (1 seed) validation accuracy and 97.90 % test accuracy on torch/cifar10" in text
    assert "What pooling buys: +1.12 points in one training each (validation); +1.50 points" in text
    assert "at 0.63x against 0.62x MACs" in text


def test_every_accuracy_has_its_error_and_no_claim_is_beyond_it() -> None:
    """The pooled spread of the finalists is 0.236 points, with 6 degrees of freedom; of the test split 0.3."""
    text = render_report(SEEDED)
    page = Page(text).text
    assert "97.8 ± 0.1 % at 0.63x the MACs of test_vit2, which has 97.7 ± 0.1 %" in page
    assert "97.83 ± 0.14 % (3 seeds) validation accuracy and 98.20 ± 0.17 % test accuracy" in page
    assert "winner against base: +0.12 ± 0.19 points, not distinguishable" in page
    assert "What pooling buys: +0.62 ± 0.19 points (validation); +1.50 ± 0.24 points (test)" in page
    rows = rows_of(text)
    assert list(rows) == [1, 0, 2, 3]
    # Of one training, the error is that of a training.
    for number, shown, seeds in ((1, "97.83 ± 0.14 %", 3), (3, "95.00 ± 0.24 %", 1)):
        assert f'<td class="num acc">{shown}</td>\n<td class="num seeds">{seeds}</td>' in rows[number]
    # Before anything was trained twice it is that of the held-out images.
    alone = replace(SEEDED, candidates=FULL.candidates)
    assert "98.1 ± 0.5 % at 0.63x" in Page(render_report(alone)).text


def test_test_accuracy_is_shown_only_where_measured() -> None:
    text = Page(render_report(replace(FULL, test_accuracy={}))).text
    assert "test accuracy" not in text
    assert "not measured" in Page(render_report(replace(FULL, test_accuracy={1: {3: 97.9}}))).text


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        (study(BASE, POOLED, best=1), "not known: nothing that pools is complete together with the same"),
        (study(BASE, PLAIN, best=2, best_drops_only=2), "not known: no candidate that pools is complete"),
        (study(BASE, PLAIN, WORSE, best=2, pair=(4, 2)), "The winner doesn't pool."),
        (study(BASE, PLAIN, WORSE, best=2, pair=(4, 2)), "\N{MINUS SIGN}3.00 points"),
        (study(BASE, PLAIN, best=2, best_drops_only=2), "winner and best drops-only #2"),
        (
            study(replace(BASE, within_budget=True), budget="1x", budget_macs=8_000_000, best=0),
            "winner and base #0",
        ),
        (study(BASE), "Nothing within the budget of 0.7x is complete yet"),
        (study(BASE, FAILED, best=5), "Nothing within the budget of 0.7x is complete yet"),
        (study(replace(BASE, state="failed", accuracy=None, reason="no memory")), "nothing to draw"),
        (study(), "No candidate has been trained yet."),
    ],
)
def test_says_what_was_not_found(results: Results, sentence: str) -> None:
    assert sentence in Page(render_report(results)).text


@pytest.mark.parametrize(
    ("keep", "best", "sentence"),
    [
        (0.5, 1, "98.1 %, within 0.5 points of the base at 0.63x its MACs"),
        (1.0, 2, "97.0 %, within 1 point of the base at 0.62x its MACs"),
        (0.0, 1, "98.1 %, as accurate as the base at 0.63x its MACs"),
        (0.25, 2, "97.0 % at 0.62x the MACs of test_vit2, which has 97.5 %"),
        (0.25, 2, "None within the budget is within 0.25 points of the base, so the most accurate won."),
        (0.5, 0, "Nothing cheaper than test_vit2 is within 0.5 points of the base"),
        (0.5, None, "Nothing within the budget of 0.7x is complete yet"),
        (0.5, 1, "accuracy to keep0.5 points"),
    ],
)
def test_the_cheapest_that_keeps_the_accuracy(keep: float, best: int | None, sentence: str) -> None:
    assert sentence in Page(render_report(replace(FULL, keep_accuracy=keep, best=best))).text


def test_shared_weights_are_named() -> None:
    text = render_report(SHARED)
    page = Page(text).text
    for part in (
        "98.1 % at 0.63x the MACs of test_vit2",
        "98.12 % (1 seed) validation accuracy and 97.90 % test accuracy on torch/cifar10, trained by itself "
        "(93.50 % with shared weights)",
        "candidate 3: 91.00 % with shared weights",
        "rank the 3 finalists with a Kendall's tau of 0.33",
        "What pooling buys: +1.12 points",
    ):
        assert part in page
    rows = rows_of(text)
    assert list(rows) == [1, 0, 2, 3]
    assert '<td class="num acc">98.12 %</td>\n<td class="num seeds">1</td>' in rows[1]
    assert '<td class="num acc">91.00 %</td>\n<td class="num seeds">shared</td>' in rows[3]


def test_shared_weights_alone_are_named() -> None:
    shared = tuple(replace(c, by_seed={}) for c in SHARED.candidates)
    page = Page(render_report(replace(SHARED, candidates=shared, agreement=None, test_accuracy={}))).text
    assert "93.5 % with shared weights at 0.63x the MACs of test_vit2" in page
    assert "with shared weights: it was not trained by itself yet" in page
    assert "Kendall" not in page


@pytest.mark.parametrize("candidates", [(), (BASE,), (BASE, PLAIN)])
def test_untrained_nothing_wins(candidates: tuple[Candidate, ...]) -> None:
    results = study(*candidates, evaluator="sensitivity", sensitivity=RICH.sensitivity, best=2, best_drops_only=2)
    text = render_report(results)
    page = Page(text).text
    assert "test_vit2 misses blocks.3 least: +0.25 points without it, untrained" in page
    assert "Nothing was trained" in page
    assert ("97.50 % validation accuracy on torch/cifar10" in page) == bool(candidates)
    assert ". on " not in page
    assert "winner" not in page.replace("which chose the winner", "")
    assert 'id="baselines"' not in text
    assert len(losses(text)) == 7


def test_every_budget_is_told_in_its_unit() -> None:
    text = Page(render_report(RICH)).text
    assert "Budget: 5.60 M MACs (0.70x), 208 K parameters (0.80x), 12.0 ms (0.80x)." in text
    for part in (
        "0.7x (5.60 M of 8.00 M MACs)",
        "0.8x (208 K of 260 K parameters)",
        "12ms (12.0 of 15.0 ms)",
    ):
        assert f"budget{part}" in text
