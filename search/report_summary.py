"""The top of the report: what was found, against which baselines, and what pooling buys."""

from __future__ import annotations

import math

from .report_format import count, esc, find, known_score, percent, plural, points, ratio, score
from .results import Candidate, Results


def _test(results: Results, number: int) -> float | None:
    """Test accuracy of a candidate if it was measured."""
    accuracy = results.test_accuracy.get(number)
    return accuracy if accuracy is not None and math.isfinite(accuracy) else None


def headline(results: Results) -> str:
    """What was found in one sentence, unescaped; the page's title as well."""
    best = find(results, results.best)
    if best is None:
        return f"Nothing within the budget of {results.budget} is complete yet"
    cost = ratio(best.macs, results.base_macs)
    return f"{percent(known_score(best), 1)} at {cost} the MACs of {results.base}"


def _detail(results: Results) -> str:
    """Which accuracies the headline means, and what the winner is; escaped."""
    best = find(results, results.best)
    if best is None:
        trained = plural(len(results.candidates), "candidate")
        failed = sum(score(c) is None for c in results.candidates)
        return f"{trained} trained so far, {failed} failed. Budget: {count(results.budget_macs)} MACs."
    tested = _test(results, best.number)
    test = f" and <strong>{percent(tested)} test accuracy</strong>" if tested is not None else ""
    pools = f"pools at {plural(len(best.pools), 'site')}" if best.pools else "pools nowhere"
    drops = "keeps every block"
    if best.drops:
        drops = f"leaves out {len(best.drops)} of {plural(len(results.blocks), 'block')}"
    return (
        f"<strong>{percent(known_score(best))} validation accuracy</strong>{test} "
        f"on {esc(results.dataset)}. The winner, candidate {best.number}, {pools} and {drops}."
    )


def _sites(names: tuple[str, ...]) -> str:
    """How many, and which."""
    return f"{len(names)} <small>{esc(', '.join(names))}</small>" if names else "none"


def _line(role: str, candidate: Candidate, results: Results, tests: bool) -> str:
    """One architecture in the table of baselines."""
    tested = _test(results, candidate.number)
    cells = [("validation accuracy", percent(known_score(candidate)))]
    if tests:
        cells.append(("test accuracy", "not measured" if tested is None else percent(tested)))
    over = ' <span class="badge over">over budget</span>' if candidate.macs > results.budget_macs else ""
    cost = f"{count(candidate.macs)} <small>{ratio(candidate.macs, results.base_macs)}</small>{over}"
    cells += [("MACs", cost), ("parameters", count(candidate.params))]
    cells += [("pools", _sites(candidate.pools)), ("drops", _sites(candidate.drops))]
    body = "".join(f'<td data-label="{name}"><span>{value}</span></td>' for name, value in cells)
    return (
        f'<tr data-n="{candidate.number}"><th scope="row">{role} '
        f'<a href="#row-{candidate.number}">#{candidate.number}</a></th>{body}</tr>'
    )


def render_baselines(results: Results) -> str:
    """Winner, base and best drops-only side by side; one that is missing is named as missing."""
    roles = [("winner", results.best), ("base", 0), ("best drops-only", results.best_drops_only)]
    tests = any(_test(results, number) is not None for number in results.test_accuracy)
    titles = ["validation accuracy", "test accuracy", "MACs", "parameters", "pools", "drops"]
    if not tests:
        titles.remove("test accuracy")
    rows, seen = [], set()
    for _, number in roles:
        candidate = find(results, number)
        if candidate is not None and number not in seen:
            seen.add(number)
            shared = " and ".join(name for name, other in roles if other == number)
            rows.append(_line(shared, candidate, results, tests))
    for role, number in roles:
        if find(results, number) is None:
            rows.append(
                f'<tr class="none"><th scope="row">{role}</th><td colspan="{len(titles)}">none is complete</td></tr>'
            )
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    return (
        '<table class="baselines"><thead><tr><th scope="col"><span class="unseen">architecture</span></th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        '<p class="note">The base has no pools and no drops; the budget is relative to it, so it may be over '
        "the budget, and then it cannot win.</p>"
    )


def _against(one: Candidate, other: Candidate, results: Results) -> str:
    """Accuracy of one minus that of another, with both costs; test accuracies where both are known."""
    gain = points(known_score(one) - known_score(other))
    tests = [_test(results, c.number) for c in (one, other)]
    test = ""
    if tests[0] is not None and tests[1] is not None:
        test = f" ({points(tests[0] - tests[1])} of test accuracy)"
    costs = [ratio(c.macs, results.base_macs) for c in (one, other)]
    return f"<strong>{gain}</strong> of validation accuracy{test}, at {costs[0]} against {costs[1]} MACs"


def render_gain(results: Results) -> str:
    """What pooling buys: the winner against the best that only leaves blocks out; empty without a winner."""
    best = find(results, results.best)
    if best is None:
        return ""
    plain = find(results, results.best_drops_only)
    pooled = [c for c in results.candidates if c.pools and score(c) is not None and c.macs <= results.budget_macs]
    if best.pools and plain is not None:
        text = f"{_against(best, plain, results)}: the winner against the best drops-only, #{plain.number}."
    elif best.pools:
        text = "not known: no architecture that only drops blocks is complete, so nothing stands against it."
    elif pooled:
        rival = max(pooled, key=lambda c: (known_score(c), -c.macs))
        text = (
            f"nothing here. No pooling won: the best pooled candidate, #{rival.number}, stands at "
            f"{_against(rival, best, results)}."
        )
    else:
        text = "nothing here. No pooling won, and no pooled candidate within the budget is complete."
    return f'<p class="gain"><b>What pooling buys:</b> {text}</p>'


def render_headline(results: Results) -> str:
    """The headline and the sentence under it."""
    return f'<h1>{esc(headline(results))}</h1><p class="detail">{_detail(results)}</p>'
