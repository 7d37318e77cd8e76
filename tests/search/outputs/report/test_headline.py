"""The top of the report: what was found, which accuracy is which, what pooling buys."""

from dataclasses import replace

import pytest
from report_examples import BASE, CHEAP, FAILED, FULL, PLAIN, POOLED, RICH, SHARED, WORSE, Page, losses, rows_of, study

from cp_vision.search.outputs.report.page import render_report
from cp_vision.search.types import Candidate, Results


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


def test_a_rival_keeps_the_budget() -> None:
    """Of those that pool, one over the budget stands for nothing, though it alone was trained by itself."""
    over = replace(POOLED, number=7, within_budget=False, trained=98.0)
    trained = replace(PLAIN, trained=97.0)
    results = study(BASE, trained, WORSE, over, best=2, best_drops_only=2, evaluator="supernet")
    assert "the best pooled candidate, #4" in Page(render_report(results)).text
