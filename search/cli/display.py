"""What a search shows on the terminal: its plan, its progress, what it found."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from tqdm import tqdm

from cp_vision.cost.macs import format_macs
from cp_vision.shared.interrupts import check_interrupt

from ...recipes.recipe.checks import notice
from ..context import kwargs_left_out
from ..observer import Observer
from ..outputs.report.figures import find
from ..outputs.report.headline import against_base, pooling
from ..outputs.report.words import estimate, test_estimate
from ..selection import Leaders
from ..space.budget import format_cost
from ..space.space import Genotype
from ..types import Candidate, Results

if TYPE_CHECKING:
    from ..context import SearchContext
    from ..outputs.writer import ResultsWriter
    from ..runner import Search
    from .plan import Forecast

__all__ = ["Progress", "duration", "plan", "show_forecast", "summary"]


def plan(search: Search) -> str:
    """The base's sites and what each costs."""
    space = search.space
    width = max(len(block.name) for block in space.blocks)
    budgets = ", ".join(f"{limit.text} = {format_cost(limit.measure, limit.most)}" for limit in space.limits)
    least = ", ".join(format_cost(limit.measure, space.least(limit.measure)) for limit in space.limits)
    lines = [
        f"{space.base.base}: {format_macs(space.base_macs)} MACs at {'x'.join(map(str, search.input_size))}; "
        f"budget {budgets}; least reachable {least}",
        f"  {'site':<{width}}  {'block':>8}  {'pool':>8}  may be pooled, dropped",
    ]
    for block in space.blocks:
        costs = f"{format_macs(block.macs):>8}  {_signed(block.pool_macs) if block.poolable else '-':>8}"
        lines.append(
            f"  {block.name:<{width}}  {costs}  {'yes' if block.poolable else 'no':<13}  "
            f"{'yes' if block.droppable else 'no'}"
        )
    for name, values in space.settings.items():
        lines.append(f"  {name}: {', '.join(map(str, values))}")
    most = [
        f"at most {n} {what}" for n, what in ((space.max_pools, "pools"), (space.max_drops, "drops")) if n is not None
    ]
    if most:
        lines.append(f"  {', '.join(most)}")
    lines.append(f"found: {search.found}")
    lines.append(
        f"data: {len(search.train_set)} images to train on, {len(search.held_out)} to compare candidates on, "
        f"{len(search.test_set)} for the final test"
    )
    if search.place.address is not None:
        lines.append(f"study: {search.place.name} in {search.place}")
    left_out = kwargs_left_out(search.config, search.recipe)
    if left_out:
        lines.append(
            f"recipe: model_kwargs {left_out} are {search.recipe.model}'s and left out; --model-kwargs sets them"
        )
    text = notice(search.recipe)
    if text is not None:
        lines.append(f"recipe: {text}")
    return "\n".join(lines)


def _signed(macs: int) -> str:
    return f"-{format_macs(-macs)}" if macs < 0 else format_macs(macs)


def show_forecast(found: Forecast, search: SearchContext) -> str:
    """What a search will take."""
    trials = search.config.candidates
    lines = [f"the space has {found.size:,} candidates; {trials} {'is' if trials == 1 else 'are'} to be tried"]
    for limit in search.space.limits:
        most = search.space.most(limit.measure)
        least = search.space.least(limit.measure)
        lines.append(
            f"  {limit.measure}: from {format_cost(limit.measure, least)} ({least / limit.base:.3f}x) to "
            f"{format_cost(limit.measure, most)} ({most / limit.base:.3f}x); allowed "
            f"{format_cost(limit.measure, limit.most)}"
        )
    if found.candidate_seconds:
        lines.append(
            f"training the base takes {duration(found.candidate_seconds)} on this device "
            f"({duration(found.epoch_seconds)} an epoch, {duration(found.score_seconds)} to score it)"
        )
    from ..evaluators.pruning import pruner_name

    stop = pruner_name(search.config.early_stop, search.recipe.epochs)
    less = f"; less with early stopping ({stop})" if search.config.evaluator == "train" and stop != "none" else ""
    lines.append(f"the whole search takes about {duration(3600 * found.hours)}{less}")
    lines.append(f"weights on disk: at most about {found.disk / 1e6:,.0f} MB")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"


def summary(results: Results, search: SearchContext | ResultsWriter, exhausted: bool = False) -> str:
    """What was found, for the terminal.

    Args:
        results: of the search.
        search: the search, or what shows it.
        exhausted: whether no new candidate was left.
    """
    best, drops_only = find(results, results.best), find(results, results.best_drops_only)
    base = next((c for c in results.candidates if c.is_base), None)
    states = [sum(c.state == state for c in results.candidates) for state in ("stopped", "failed")]
    tried = f"{len(results.candidates)} candidates tried"
    tried += "".join(f", {n} {what}" for n, what in zip(states, ("stopped early", "failed"), strict=True) if n)
    lines = [tried]
    if exhausted:
        lines.append("  no other candidate within the budget was found")
    shown = [("base", base)]
    if results.evaluator != "sensitivity":
        shown += [("best that only drops", drops_only), ("winner", best)]
    for name, c in shown:
        lines.append(f"  {name:<20}  {_line(c, results)}")
    if results.agreement is not None:
        lines.append(f"  shared weights and own trainings agree by Kendall's tau {results.agreement:.2f}")
    if results.sensitivity:
        least = sorted(results.sensitivity.items(), key=lambda item: item[1])[:4]
        blocks = ", ".join(f"{lost:.2f} {name}" for name, lost in least)
        lines.append(f"  points that the base loses without a block, the least: {blocks}")
    if best is not None and results.evaluator != "sensitivity":
        lines.append(
            f"  winner pools after: {', '.join(best.pools) or 'nothing'}; drops: {', '.join(best.drops) or 'nothing'}"
        )
        if against_base(results):
            lines.append(f"  winner against base: {against_base(results)}")
        lines += [f"  what pooling buys: {part}" for part in pooling(results)]
        if (search.output / "best").is_dir():
            lines.append(f'Load it:  timm.create_model("local-dir:{search.output / "best"}", pretrained=True)')
    if (search.output / "report.html").exists():
        lines.append(f"Report:   {search.output / 'report.html'}")
    return "\n".join(lines)


def _line(c: Candidate | None, results: Results) -> str:
    if c is None or c.score is None:
        return "none"
    # As the report has it: what a training of its own would reach, those don't tell.
    shared = " with shared weights" if results.evaluator == "supernet" and not c.by_seed else ""
    tested = test_estimate(c, results)
    test = f", test {tested}" if tested else ""
    over = "" if c.within_budget else ", over the budget"
    share = f"{c.macs / results.base_macs:.3f}x{over}"
    return f"validation {estimate(c, results)}{shared}{test}, {format_macs(c.macs)} MACs ({share})"


class Progress(Observer):
    """One line on the terminal: trials done, best so far, time left. In a log, a line for each candidate.

    Args:
        trials: how many there will be.
        quiet: show nothing.
    """

    def __init__(self, trials: int, quiet: bool = False) -> None:
        self.trials, self.done = trials, 0
        self.is_log, self.hidden = not sys.stderr.isatty() and not quiet, quiet or not sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.part: tqdm | None = None

    def on_begin(self, finished: int) -> None:
        """Show the line."""
        self.done = finished
        self.bar = tqdm(
            total=self.trials,
            initial=finished,
            disable=self.hidden,
            bar_format="{bar:12} {n:.1f}/{total} trials [{elapsed}, {remaining} left]{postfix}",
        )

    def on_phase(self, name: str, parts: int) -> None:
        """Show a line of its own for it."""
        self._end_part()
        if self.is_log:
            print(name, file=sys.stderr, flush=True)
        layout = "{bar:12} {n:.1f}/{total} " + name + " [{elapsed}, {remaining} left]"
        self.part = tqdm(total=parts, disable=self.hidden, bar_format=layout)

    def on_part(self, name: str, done: float) -> None:
        """Move it."""
        check_interrupt()
        if self.part is not None:
            self.part.n = done
            self.part.refresh()
            if done >= (self.part.total or 0):
                self._end_part()

    def on_start(self, choice: Genotype, seed: int | None = None) -> Callable[[int, int, float], None]:
        """Move with the epochs."""
        check_interrupt()
        if self.bar is not None:
            # Counterparts without pools and further trainings of finalists come on top.
            self.bar.total = max(self.trials, self.done + 1)
        return lambda epoch, epochs, loss: self._show(self.done + epoch / epochs)

    def on_finish(self, candidate: Candidate, now: Leaders) -> None:
        """Show who leads."""
        self.done += 1
        if self.is_log:
            self._tell(candidate, now)
        if self.bar is not None and now.best is not None:
            self.bar.set_postfix_str(f"best {now.best.score:.2f} % at {format_macs(now.best.macs)} MACs", refresh=False)
        self._show(self.done)

    def _tell(self, candidate: Candidate, now: Leaders) -> None:
        score = "no score" if candidate.score is None else f"validation {candidate.score:.2f} %"
        what = f"candidate {candidate.number}, {candidate.state}: {score} at {format_macs(candidate.macs)} MACs"
        best = "" if now.best is None else f"; best {now.best.score:.2f} % at {format_macs(now.best.macs)} MACs"
        total = max(self.trials, self.done)
        print(f"{self.done:.1f}/{total} trials: {what}{best}", file=sys.stderr, flush=True)

    def on_wait(self, running: int) -> None:
        """Tell what it waits for."""
        check_interrupt()
        if self.bar is not None:
            self.bar.set_postfix_str(f"waiting for {running} of other processes")

    def close(self) -> None:
        """Leave the lines as they are."""
        self._end_part()
        if self.bar is not None:
            self.bar.close()

    def _end_part(self) -> None:
        if self.part is not None:
            self.part.close()
            self.part = None

    def _show(self, done: float) -> None:
        check_interrupt()
        if self.bar is not None:
            self.bar.n = done
            self.bar.refresh()
