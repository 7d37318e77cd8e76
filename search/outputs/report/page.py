"""The HTML report of a search: one file that opens offline, made to be looked at."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from pathlib import Path

from cp_vision.shared.files import write_text

from ...types import Results
from .baselines import render_baselines
from .chart import render_chart
from .costs import render_costs
from .footer import render_footer
from .format import esc, find, score
from .importance import render_importance
from .latency import render_latency
from .script import SCRIPT
from .sensitivity import render_sensitivity
from .strips import render_strip, render_strips, stages
from .style import STYLE
from .summary import headline, render_gain, render_headline
from .words import describe


def _policy() -> str:
    """Content security policy: no network, and no script but the page's own."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _readout(results: Results) -> str:
    """The strip under the chart: the winner's, until the script shows that of the dot pointed at."""
    best = find(results, results.best)
    if best is None:
        text, strip = "Point at a dot to see its sites.", ""
    else:
        text, strip = describe(best, results), render_strip(best, stages(results))
    return f'<div id="readout" style="--blocks:{len(results.blocks)}"><p>{esc(text)}</p>{strip}</div>'


def _chart(results: Results) -> str:
    chart = render_chart(results)
    return chart + _readout(results) if any(score(c) is not None for c in results.candidates) else chart


def _section(name: str, title: str, body: str) -> str:
    """A section of the page; none where it has nothing to say."""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{body}</section>' if body else ""


def _sections(results: Results) -> str:
    untrained = results.evaluator == "sensitivity"
    lost = _section("sensitivity", "What the base loses without each block", render_sensitivity(results))
    pair = _section("importance", "What mattered", render_importance(results))
    pair += _section("latency", "MACs against measured latency", render_latency(results))
    return "".join(
        [
            lost if untrained else _section("baselines", "Against the baselines", render_baselines(results)),
            _section("chart", "Accuracy against cost", _chart(results)),
            f'<div class="pair">{pair}</div>' if pair else "",
            "" if untrained else lost,
            _section("strips", "All candidates, site by site", render_strips(results)),
            _section("costs", "What each site costs", render_costs(results)),
        ]
    )


def render_report(results: Results) -> str:
    """The whole page as text."""
    if results.evaluator == "sensitivity":
        # Without any training nothing wins: what was scored only shows where dropping is cheap.
        results = dataclasses.replace(results, best=None, best_drops_only=None)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(headline(results))}</title><style>{STYLE}</style></head>\n"
        f"<body><main><header>{render_headline(results)}{render_gain(results)}</header>{_sections(results)}</main>"
        f"{render_footer(results)}<script>{SCRIPT}</script></body></html>\n"
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
