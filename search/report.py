"""The HTML report of a search: one file that opens offline, made to be looked at."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cp_vision.files import write_text

from .report_chart import render_chart
from .report_format import count, describe, esc, find, score
from .report_strips import render_costs, render_strip, render_strips, stages
from .report_style import SCRIPT, STYLE
from .report_summary import headline, render_baselines, render_gain, render_headline
from .results import Results


def _policy() -> str:
    """Content security policy: no network, and no script but the page's own."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _readout(results: Results) -> str:
    """The strip under the chart: the winner's, until the script shows that of the dot pointed at."""
    best = find(results, results.best)
    if best is None:
        text, strip = "Point at a dot to see its blocks.", ""
    else:
        text, strip = describe(best, results), render_strip(best, stages(results))
    return f'<div id="readout" style="--blocks:{len(results.blocks)}"><p>{esc(text)}</p>{strip}</div>'


def _section(name: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{body}</section>'


def _footer(results: Results) -> str:
    """How to make the study again, and what the words mean."""
    failed = sum(score(c) is None for c in results.candidates)
    hours = sum(c.seconds for c in results.candidates) / 3600
    facts = [
        ("base", results.base),
        ("data set", results.dataset),
        ("recipe", results.recipe),
        ("seed", results.seed),
        ("budget", f"{results.budget} ({count(results.budget_macs)} of {count(results.base_macs)} MACs)"),
        ("candidates", f"{len(results.candidates)}, {failed} of them failed"),
        ("training", f"{hours:.1f} hours in all" if hours >= 1 else f"{60 * hours:.0f} minutes in all"),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{esc(value)}</dd></div>" for name, value in facts)
    return (
        "<footer><h2>To make this study again</h2>"
        f'<pre tabindex="0" aria-label="Command"><code>{esc(results.command)}</code></pre><dl>{listed}</dl>'
        "<p>MACs: one multiply-add counts one, the figure papers print as FLOPs.</p>"
        "<p>Validation accuracy: top-1 on the validation split, which chose the winner. "
        "Test accuracy: top-1 on the test split, which chose nothing.</p>"
        "<p>Pareto front: the candidates that no other beats in both accuracy and MACs.</p></footer>"
    )


def render_report(results: Results) -> str:
    """The whole page as text."""
    chart = render_chart(results)
    if any(score(c) is not None for c in results.candidates):
        chart += _readout(results)
    body = "".join(
        [
            f"<header>{render_headline(results)}{render_gain(results)}</header>",
            _section("baselines", "Against the baselines", render_baselines(results)),
            _section("chart", "Accuracy against cost", chart),
            _section("strips", "All candidates, block by block", render_strips(results)),
            _section("costs", "What each block costs", render_costs(results)),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(headline(results))}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{body}</main>{_footer(results)}<script>{SCRIPT}</script></body></html>\n"
    )


def write_report(results: Results, path: Path) -> None:
    """Write the page; a reader sees the old one or the new one, never half of it.

    Args:
        results: what the search has found so far.
        path: the file to write; its folder must exist.

    Raises:
        OSError: the folder is missing or cannot be written.
    """
    write_text(path, render_report(results))
