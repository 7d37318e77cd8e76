"""``cp-search``: the search from the command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from tqdm import tqdm

from cp_vision.command_line import CommandParser, parse_pairs, run_command

from .budget import format_macs
from .config import SearchConfig
from .evaluate import OnEpoch
from .executor import Leaders, Observer
from .proposals import SAMPLERS
from .results import Candidate, Results
from .run import Search
from .space import Choice, Space

__all__ = ["main"]

DESCRIPTION = """\
Search where to pool and which blocks to drop, so that accuracy holds under a MAC budget.

Nothing over the budget is built or trained, but for the base itself, which sets the scale. Stop it with
Ctrl-C and the same command goes on. Example:

  cp-search test_vit2 --budget 0.7x --trials 24 --output runs/digits
"""


def parser() -> CommandParser:
    """The arguments of ``cp-search``."""
    defaults = SearchConfig("")
    made = CommandParser("cp-search", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("base", help="timm name of the base, such as resnet50 or vit_small_patch16_224")
    made.add_argument("--budget", default=defaults.budget, help="share of the base's MACs (0.7x) or MACs (2.9G)")
    made.add_argument("--dataset", help="data set by timm's name (torch/cifar10); default the recipe's")
    made.add_argument("--data-dir", help="folder of the data set; alone: an image folder with train/ and val/")
    made.add_argument("--recipe", help="recipe file or bundled name; default digits, or default with other data")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a recipe's value")
    made.add_argument(
        "--model-kwargs",
        nargs="*",
        metavar="KEY=VALUE",
        help="arguments of the base; default the recipe's, if its own",
    )
    made.add_argument(
        "--pool-kwargs",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="options of every pool (mode, support_range)",
    )
    made.add_argument("--trials", type=int, default=defaults.trials, help="candidates to try, the base included")
    made.add_argument("--sampler", default=defaults.sampler, help=f"one of {', '.join(SAMPLERS)}")
    made.add_argument(
        "--val-fraction",
        type=float,
        default=defaults.val_fraction,
        help="share of the training split held out",
    )
    made.add_argument("--seed", type=int, default=defaults.seed, help="seed of sampler and trainings")
    made.add_argument("--output", help="folder to write; default runs/BASE")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``cp-search``; returns the exit code."""
    return run_command(_search, arguments, "cp-search")


def _search(arguments: Sequence[str] | None) -> None:
    args = parser().parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    search = Search(
        SearchConfig(
            base=args.base,
            budget=args.budget,
            recipe=args.recipe,
            dataset=args.dataset,
            data_dir=args.data_dir,
            overrides=tuple(args.set),
            model_kwargs=None if args.model_kwargs is None else parse_pairs(args.model_kwargs, "--model-kwargs"),
            pool_options=parse_pairs(args.pool_kwargs, "--pool-kwargs"),
            trials=args.trials,
            output=args.output or f"runs/{args.base}",
            seed=args.seed,
            sampler=args.sampler,
            val_fraction=args.val_fraction,
            command=shlex.join(["cp-search", *words]),
        )
    )
    print(_plan(search), flush=True)
    progress = _Progress(search.config.trials)
    try:
        results = search.run(progress)
    except KeyboardInterrupt:
        progress.close()
        print(f"\nStopped. The same command goes on: {search.config.command}", file=sys.stderr)
        raise
    progress.close()
    print(_summary(results, search))


def _plan(search: Search) -> str:
    """The base's sites and what each costs."""
    space: Space = search.space
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


def _summary(results: Results, search: Search) -> str:
    """What was found, for the terminal."""
    candidates = {c.number: c for c in results.candidates}
    best = candidates.get(results.best) if results.best is not None else None
    base = next((c for c in results.candidates if not c.pools and not c.drops), None)
    drops_only = candidates.get(results.best_drops_only) if results.best_drops_only is not None else None
    lines = [f"{len(results.candidates)} candidates tried; {search.proposer.refused} proposals over the budget refused"]
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


class _Progress(Observer):
    """One line on the terminal: trials done, best so far, time left."""

    def __init__(self, trials: int) -> None:
        self.trials, self.done = trials, 0
        self.bar: tqdm | None = None

    def on_begin(self, finished: int) -> None:
        self.done = finished
        self.bar = tqdm(
            total=self.trials,
            initial=finished,
            bar_format="{bar:24} {n:.1f}/{total} trials [{elapsed}, {remaining} left]{postfix}",
        )

    def on_start(self, choice: Choice) -> OnEpoch:
        if self.bar is not None:
            # The winner's counterpart without pools may come on top.
            self.bar.total = max(self.trials, self.done + 1)
        return lambda epoch, epochs, loss: self._show(self.done + epoch / epochs)

    def on_finish(self, candidate: Candidate, now: Leaders) -> None:
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
