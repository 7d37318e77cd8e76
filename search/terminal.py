"""What a search shows on the terminal: its plan, its progress, what it found."""

from __future__ import annotations

from tqdm import tqdm

from cp_vision.cost import format_macs

from .driver import Search
from .evaluate import OnEpoch
from .executor import Leaders, Observer
from .report_format import find
from .results import Candidate, Results
from .space import Choice

__all__ = ["Progress", "plan", "summary"]


def plan(search: Search) -> str:
    """The base's sites and what each costs."""
    space = search.space
    width = max(len(block.name) for block in space.blocks)
    lines = [
        f"{space.base.base}: {format_macs(space.base_macs)} MACs at {'x'.join(map(str, search.input_size))}; "
        f"budget {search.config.budget} = {format_macs(search.budget)}; "
        f"least reachable {format_macs(space.least_macs)}",
        f"  {'site':<{width}}  {'block':>8}  {'pool':>8}  may be dropped",
    ]
    for block in space.blocks:
        costs = f"{format_macs(block.macs):>8}  {format_macs(block.pool_macs):>8}"
        lines.append(f"  {block.name:<{width}}  {costs}  {'yes' if block.droppable else 'no'}")
    lines.append(
        f"data: {len(search.train_set)} images to train on, {len(search.held_out)} to compare candidates on, "
        f"{len(search.test_set)} for the final test"
    )
    return "\n".join(lines)


def summary(results: Results, search: Search) -> str:
    """What was found, for the terminal."""
    best, drops_only = find(results, results.best), find(results, results.best_drops_only)
    base = next((c for c in results.candidates if c.is_base), None)
    lines = [f"{len(results.candidates)} candidates tried; {search.refused} proposals over the budget refused"]
    if search.exhausted:
        lines.append("  no other candidate within the budget was found")
    for name, c in (("base", base), ("best that only drops", drops_only), ("winner", best)):
        if c is None or c.accuracy is None:
            lines.append(f"  {name:<20}  none")
            continue
        tested = results.test_accuracy.get(c.number)
        test = "" if tested is None else f", test {tested:.2f} %"
        share = f"{c.macs / results.base_macs:.3f}x"
        lines.append(f"  {name:<20}  validation {c.accuracy:.2f} %{test}, {format_macs(c.macs)} MACs ({share})")
    if best is not None:
        lines.append(
            f"  winner pools after: {', '.join(best.pools) or 'nothing'}; drops: {', '.join(best.drops) or 'nothing'}"
        )
        lines.append(f'Load it:  timm.create_model("local-dir:{search.output / "best"}", pretrained=True)')
    lines.append(f"Report:   {search.output / 'report.html'}")
    return "\n".join(lines)


class Progress(Observer):
    """One line on the terminal: trials done, best so far, time left."""

    def __init__(self, trials: int) -> None:
        self.trials, self.done = trials, 0
        self.bar: tqdm | None = None

    def on_begin(self, finished: int) -> None:
        """Show the line."""
        self.done = finished
        self.bar = tqdm(
            total=self.trials,
            initial=finished,
            bar_format="{bar:12} {n:.1f}/{total} trials [{elapsed}, {remaining} left]{postfix}",
        )

    def on_start(self, choice: Choice) -> OnEpoch:
        """Move with the epochs."""
        if self.bar is not None:
            # The winner's counterpart without pools may come on top.
            self.bar.total = max(self.trials, self.done + 1)
        return lambda epoch, epochs, loss: self._show(self.done + epoch / epochs)

    def on_finish(self, candidate: Candidate, now: Leaders) -> None:
        """Show who leads."""
        self.done += 1
        if self.bar is None:
            return
        if now.best is not None:
            self.bar.set_postfix_str(
                f"best {now.best.accuracy:.2f} % at {format_macs(now.best.macs)} MACs", refresh=False
            )
        self._show(self.done)

    def close(self) -> None:
        """Leave the line as it is."""
        if self.bar is not None:
            self.bar.close()

    def _show(self, done: float) -> None:
        if self.bar is not None:
            self.bar.n = done
            self.bar.refresh()
