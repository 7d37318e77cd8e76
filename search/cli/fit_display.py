"""What a search by fitted stand-ins shows on the terminal: what it will take, its progress, what was found."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from cp_vision.shared.interrupts import check_interrupt

from ..fit.budget import Budget, cost_in_words
from ..fit.forecast import Forecast
from ..outputs.report.fit_page import headline
from ..outputs.report.fit_words import COSTS
from .display import duration

__all__ = ["FitProgress", "show_fit_forecast", "show_fit_results"]


def show_fit_forecast(found: Forecast, budgets: Sequence[Budget]) -> str:
    """What a search will take and can reach."""
    costs = f"{cost_in_words('macs', found.base_macs)}, {cost_in_words('params', found.base_params)}"
    least = "told once the parts are timed"
    if found.least is not None:
        least = f"{found.least:.3f}x of its {COSTS[budgets[0].measure]}"
    whole = found.library_seconds + len(budgets) * found.budget_seconds
    lines = [
        f"the base: {costs}; {found.options} options at {found.places} places of {found.blocks} blocks",
        f"budgets: {', '.join(budget.text for budget in budgets)}; the smallest that can be met: {least}",
        f"options take about {duration(found.library_seconds)}, once for all budgets; each budget about "
        f"{duration(found.budget_seconds)}, without distillation",
        f"the whole takes about {duration(whole)}",
    ]
    return "\n".join(lines)


def show_fit_results(values: Mapping[str, Any]) -> str:
    """What was found so far, from ``results.json``."""
    lines = [headline(values)]
    for point in values["points"]:
        top1, over = point["test_top1"], point["over_base"]
        accuracy = "" if top1 is None else f", test {top1['value']:.2f} %"
        if over is not None:
            error = "" if over["error"] is None else f" ± {over['error']:.2f}"
            accuracy += f" ({over['value']:+.2f}{error} over the base)"
        lines.append(
            f"  {point['budget']}: {point['share_of_base']:.3f}x{accuracy}, {values['score']} "
            f"{point['divergence']:.3g}: {point['made_of']}"
        )
    return "\n".join(lines)


class FitProgress:
    """One line on the terminal for a search by fitted stand-ins; in a log a line for each part.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.is_log, self.hidden = not sys.stderr.isatty() and not quiet, quiet or not sys.stderr.isatty()
        self.bar: tqdm | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        """Take parts done, parts in all (0 where that is not known) and what is being done."""
        check_interrupt()
        if self.is_log:
            print(f"{done}/{total} {what}", file=sys.stderr, flush=True)
        if self.bar is None:
            self.bar = tqdm(total=total, disable=self.hidden, bar_format="{bar:12} {n}/{total} {desc} [{elapsed}]")
        self.bar.total, self.bar.n = total, done
        self.bar.set_description_str(what)

    def close(self) -> None:
        """Leave the line as it is."""
        if self.bar is not None:
            self.bar.close()
