"""The top of the report: what was found, and what pooling buys."""

from __future__ import annotations

import re

from ...selection import leaders
from ...types import Candidate, Results
from .baselines import tested
from .format import esc, find, finite, known_score, own_score, percent, plural, points, ratio, score
from .sensitivity import least_missed
from .words import limit_in_short, limits_of, shared, tally


def _keeps(candidate: Candidate, results: Results) -> bool | None:
    """Whether a candidate keeps the accuracy that was asked for; None where none was, or the base has none."""
    base, keep = find(results, 0), finite(results.keep_accuracy)
    if base is None or keep is None:
        return None
    return own_score(candidate) >= own_score(base) - keep


def _near(results: Results) -> str:
    """The accuracy to keep in words."""
    keep = finite(results.keep_accuracy) or 0.0
    return f"within {keep:g} {'point' if keep == 1 else 'points'} of the base" if keep else "as accurate as the base"


def headline(results: Results) -> str:
    """What was found in one sentence, unescaped; the page's title as well."""
    if results.evaluator == "sensitivity":
        least = least_missed(results)
        if least is None:
            return f"{results.base}, untrained"
        return f"{results.base} misses {least[0]} least: {points(-least[1])} without it, untrained"
    best = find(results, results.best)
    if best is None:
        return f"Nothing within the budget of {results.budget} is complete yet"
    cost = ratio(best.macs, results.base_macs)
    how = " with shared weights" if shared(results) and finite(best.trained) is None else ""
    accuracy = f"{percent(own_score(best), 1)}{how}"
    if _keeps(best, results):
        if best.is_base:
            return f"Nothing cheaper than {results.base} is {_near(results)}"
        return f"{accuracy}, {_near(results)} at {cost} its MACs"
    return f"{accuracy} at {cost} the MACs of {results.base}"


def _budget(results: Results) -> str:
    """Every budget in one sentence, escaped; empty where there is none."""
    limits = [esc(limit_in_short(limit)) for limit in limits_of(results)]
    return f" Budget: {', '.join(limits)}." if limits else ""


def _detail(results: Results) -> str:
    """Which accuracies the headline means, and what the winner is; escaped."""
    best, base = find(results, results.best), find(results, 0)
    if results.evaluator == "sensitivity":
        alone = (
            "" if base is None else f" Whole it has <strong>{percent(known_score(base))}</strong> validation accuracy"
        )
        return f"Nothing was trained: the base was scored with its own weights.{alone} on {esc(results.dataset)}."
    if best is None:
        return f"{tally(results)} tried so far.{_budget(results)}"
    test = tested(results, best.number)
    also = f" and <strong>{percent(test)} test accuracy</strong>" if test is not None else ""
    weights = ""
    if shared(results):
        by_itself = finite(best.trained) is not None
        weights = (
            f", trained by itself ({percent(known_score(best))} with shared weights)"
            if by_itself
            else (", with shared weights: it was not trained by itself yet")
        )
    pools = f"pools at {plural(len(best.pools), 'site')}" if best.pools else "pools nowhere"
    drops = "keeps every block"
    if best.drops:
        blocks = sum(block.macs > 0 for block in results.blocks)
        drops = f"leaves out {len(best.drops)} of {plural(blocks, 'block')}"
    text = (
        f"<strong>{percent(own_score(best))} validation accuracy</strong>{also} "
        f"on {esc(results.dataset)}{weights}. The winner, candidate {best.number}, {pools} and {drops}."
    )
    keeps = _keeps(best, results)
    if keeps is not None and base is not None:
        text += f" The base, {esc(results.base)}, has <strong>{percent(own_score(base))}</strong>."
        if not keeps:
            text += f" None within the budget is {_near(results)}, so the most accurate won."
    return text + _budget(results)


def _against(one: Candidate, other: Candidate, results: Results) -> str:
    """Accuracy of one minus that of another, with both costs; test accuracies where both are known."""
    own = all(finite(c.trained) is not None for c in (one, other))
    measure = own_score if own else known_score
    kind = "validation accuracy" + (" with shared weights" if shared(results) and not own else "")
    gain = points(measure(one) - measure(other))
    tests = [tested(results, c.number) for c in (one, other)]
    test = ""
    if tests[0] is not None and tests[1] is not None:
        test = f" ({points(tests[0] - tests[1])} of test accuracy)"
    costs = " against ".join(ratio(c.macs, results.base_macs) for c in (one, other))
    if results.keep_accuracy is not None:
        # The cheapest wins, so what pooling buys is MACs.
        return f"<strong>{costs} MACs</strong>, at {gain} of {kind}{test}"
    return f"<strong>{gain}</strong> of {kind}{test}, at {costs} MACs"


def render_gain(results: Results) -> str:
    """What pooling buys: the winner against the best without pools; empty without a winner."""
    best = find(results, results.best)
    if best is None or results.evaluator == "sensitivity":
        return ""
    without = [c for c in results.candidates if not c.pools and score(c) is not None]
    plain = leaders(without, results.keep_accuracy, results.limits[0].measure if results.limits else "macs").best
    pooled = [c for c in results.candidates if c.pools and score(c) is not None and c.within_budget]
    # A training of its own stands against another one's, as far as there are any.
    pooled = [c for c in pooled if finite(c.trained) is not None] or pooled
    if best.pools and plain is not None:
        kind = "base" if plain.is_base else "best drops-only" if plain.drops_only else "best without pools"
        text = f"{_against(best, plain, results)}: the winner against the {kind}, #{plain.number}."
    elif best.pools:
        text = "not known: no architecture without pools is complete within the budget, so nothing stands against it."
    elif pooled:
        rival = max(pooled, key=lambda c: (own_score(c), -c.macs))
        text = (
            f"nothing here. No pooling won: the best pooled candidate, #{rival.number}, stands at "
            f"{_against(rival, best, results)}."
        )
    else:
        text = "nothing here. No pooling won, and no pooled candidate within the budget is complete."
    return f'<p class="gain"><b>What pooling buys:</b> {text}</p>'


def render_headline(results: Results) -> str:
    """The headline and the sentence under it."""
    # Long names of models break where a part of them ends.
    title = re.sub(r"([_,/]|\.(?=[a-z]))", r"\1<wbr>", esc(headline(results)))
    return f'<h1>{title}</h1><p class="detail">{_detail(results)}</p>'
