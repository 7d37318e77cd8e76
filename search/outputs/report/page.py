"""The HTML report of a search: one file that opens offline, made to be looked at."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from cp_vision.shared.files import write_text

from ...types import Results
from . import figures, words
from .chart import cost_chart, latency_chart
from .headline import against_base, headline, keeps, near, what_pooling_buys
from .sensitivity import losses_chart
from .strips import cell, stages, strip_rows
from .tables import baselines, facts, shares

FILTERS = (
    *(words.architecture, words.count, words.limit_in_short, words.milliseconds, words.percent, words.plural),
    *(words.points, words.ratio, words.settings_of, words.signed),
    *(words.estimate, words.test_estimate),
)


def breakable(name: str) -> list[str]:
    """The parts of a long name, after each of which a line may break."""
    return re.split(r"(?<=[_,/])|(?<=\.)(?=[a-z])", name)


@cache
def template(name: str) -> Template:
    """A template, compiled once: a search writes its report after every candidate."""
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({function.__name__: function for function in (*FILTERS, breakable)})
    environment.globals["cell"] = cell
    return environment.get_template(name)


@cache
def file_text(name: str) -> str:
    """The text of a file that the page has in it."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def render_report(results: Results) -> str:
    """The whole page as text."""
    results = figures.finite_only(results)
    if results.evaluator == "sensitivity":
        # Without any training nothing wins: what was scored only shows where dropping is cheap.
        results = dataclasses.replace(results, best=None, best_drops_only=None, pair=None)
    best, script = figures.find(results, results.best), file_text("script.js")
    return template("report.html.j2").render(
        results=results,
        untrained=results.evaluator == "sensitivity",
        shared=figures.shared(results),
        headline=headline(results),
        best=best,
        base=figures.find(results, 0),
        against_base=against_base(results),
        keeps=None if best is None else keeps(best, results),
        near=near(results),
        pair=what_pooling_buys(results),
        limits=words.limits_of(results),
        tally=words.tally(results),
        described="" if best is None else words.describe(best, results),
        accuracy_name=words.accuracy_name(results),
        baselines=baselines(results),
        chart=cost_chart(results),
        cost=words.COSTS[results.measure],
        shares=shares(results),
        latency=latency_chart(results),
        losses=losses_chart(results),
        stages=stages(results),
        rows=strip_rows(results),
        facts=facts(results),
        style=file_text("style.css"),
        script=script,
        # The page's policy allows no script but this one.
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def render_sensitivity_svg(results: Results) -> str:
    """What the base loses without each block, as an SVG file that can be read alone, on a light background.

    Args:
        results: of the search; where nothing was measured the picture says so.
    """
    losses = losses_chart(figures.finite_only(results))
    return template("sensitivity.svg.j2").render(base=results.base, losses=losses)


def write_report(results: Results, path: Path) -> None:
    """Write the page; a reader sees the old one or the new one, never half of it.

    Args:
        results: what the search has found so far.
        path: the file to write; its folder must exist.

    Raises:
        OSError: the folder is missing or cannot be written.
    """
    write_text(path, render_report(results))
