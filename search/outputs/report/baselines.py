"""The report's table of baselines: winner, base and the best that only drops, side by side."""

from __future__ import annotations

from ...types import Candidate, Results
from .format import count, esc, find, finite, known_score, milliseconds, percent, ratio
from .words import settings_of, shared

Cell = tuple[str, str]
WIDE = ("settings", "pools", "drops")


def tested(results: Results, number: int) -> float | None:
    """Test accuracy of a candidate if it was measured."""
    return finite(results.test_accuracy.get(number))


def render_agreement(results: Results) -> str:
    """How well shared weights rank the finalists, in a sentence; empty where that is not known."""
    tau = finite(results.agreement)
    finalists = sum(finite(c.trained) is not None for c in results.candidates)
    if tau is None or not shared(results):
        return ""
    return (
        f"Shared weights and trainings of their own rank the {finalists} finalists with a Kendall's tau of "
        f"<strong>{tau:.2f}</strong> (1: in the same order, 0: unrelated)."
    )


def _sites(names: tuple[str, ...]) -> str:
    """How many, and which."""
    return f"{len(names)} <small>{esc(', '.join(names))}</small>" if names else "none"


def _latency(candidate: Candidate, results: Results) -> str:
    """Measured on the whole model, or else predicted from its parts."""
    measured, predicted = finite(results.measured_latency.get(candidate.number)), finite(candidate.latency)
    if measured is not None:
        return milliseconds(measured)
    return "not measured" if predicted is None else f"{milliseconds(predicted)} <small>predicted</small>"


def _cells(candidate: Candidate, results: Results) -> list[Cell]:
    """Everything that may be said of an architecture, in the order of the columns."""
    test, own = tested(results, candidate.number), finite(candidate.trained)
    over = "" if candidate.within_budget else ' <span class="badge over">over budget</span>'
    accuracy = percent(known_score(candidate))
    if shared(results):
        cells = [("validation accuracy", "not trained" if own is None else percent(own))]
        cells.append(("with shared weights", accuracy))
    else:
        cells = [("validation accuracy", accuracy)]
    return [
        *cells,
        ("test accuracy", "not measured" if test is None else percent(test)),
        ("MACs", f"{count(candidate.macs)} <small>{ratio(candidate.macs, results.base_macs)}</small>{over}"),
        ("parameters", count(candidate.params)),
        ("time of an image", _latency(candidate, results)),
        ("settings", esc(settings_of(candidate)) or "none"),
        ("pools", _sites(candidate.pools)),
        ("drops", _sites(candidate.drops)),
    ]


def _row(role: str, candidate: Candidate, cells: list[Cell]) -> str:
    body = "".join(
        f'<td data-label="{name}" class="{"wide" if name in WIDE else "one"}"><span>{value}</span></td>'
        for name, value in cells
    )
    return (
        f'<tr data-n="{candidate.number}"><th scope="row">{role} '
        f'<a href="#row-{candidate.number}">#{candidate.number}</a></th>{body}</tr>'
    )


def render_baselines(results: Results) -> str:
    """Winner, base and best drops-only; one that is missing is named as missing."""
    roles = [("winner", results.best), ("base", 0), ("best drops-only", results.best_drops_only)]
    found = {c.number: _cells(c, results) for _, number in roles if (c := find(results, number)) is not None}
    # A column in which nobody has anything to say is left out.
    unsaid = {"test accuracy": "not measured", "time of an image": "not measured", "settings": "none"}
    empty = {
        name
        for name, nothing in unsaid.items()
        if all(value == nothing for cells in found.values() for title, value in cells if title == name)
    }
    titles = ["validation accuracy", *(["with shared weights"] if shared(results) else []), "test accuracy", "MACs"]
    titles += ["parameters", "time of an image", "settings", "pools", "drops"]
    titles = [title for title in titles if title not in empty]
    rows = []
    for number, cells in found.items():
        candidate = find(results, number)
        if candidate is not None:
            role = " and ".join(name for name, other in roles if other == number)
            rows.append(_row(role, candidate, [cell for cell in cells if cell[0] in titles]))
    for role, missing in roles:
        if missing not in found:
            rows.append(
                f'<tr class="none"><th scope="row">{role}</th><td colspan="{len(titles)}">none is complete</td></tr>'
            )
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    agreement = render_agreement(results)
    return (
        '<div class="scroll" role="region" aria-label="Baselines" tabindex="0"><table class="baselines">'
        f'<thead><tr><th scope="col"><span class="unseen">architecture</span></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        + (f'<p class="note">{agreement}</p>' if agreement else "")
        + '<p class="note">The base has no pools and no drops; a budget is relative to it, so it may be over '
        "the budget, and then it cannot win.</p>"
    )
