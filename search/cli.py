"""``cp-search``: the search from the command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from cp_vision.command_line import CommandParser, parse_pairs, run_command
from cp_vision.errors import UserError

from .config import SearchConfig

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
    made.add_argument("--sampler", default=defaults.sampler, help="tpe, nsgaii or random")
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
    try:
        from .driver import Search
        from .terminal import Progress, plan, summary
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("cp-search needs Optuna, which is not installed; pip install 'cp-vision[search]'") from error
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
    print(plan(search), flush=True)
    progress = Progress(search.config.trials)
    try:
        results = search.run(progress)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on: {search.config.command}", file=sys.stderr)
        raise
    finally:
        progress.close()
    print(summary(results, search))
