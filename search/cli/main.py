"""``cp-search``: the search from the command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cp_vision.shared.command_line import CommandParser, parse_pairs, run_command
from cp_vision.shared.errors import UserError

if TYPE_CHECKING:
    from ..config.schema import SearchConfig

__all__ = ["main"]

DESCRIPTION = """\
Search where to pool and which blocks to drop, so that accuracy holds under a budget.

Nothing over the budget is built or trained, but for the base itself, which sets the scale. Stop it in any way and
the same command goes on; start it several times and they share the work. Examples:

  cp-search test_vit2 --budget 0.7x --trials 24 --output runs/digits
  cp-search test_vit2 --keep-accuracy 0.5 --plan
  cp-search resnet50 --data-dir ~/pets --recipe my.yaml --executor ray --parallel 4 --cpus 4 --gpus 1

On a search that was begun:
"""


def parser() -> CommandParser:
    """The arguments of ``cp-search``."""
    from ..config.schema import EVALUATORS, EXECUTORS, OBJECTIVES, SAMPLERS, STOPPERS, SearchConfig
    from .subcommands import COMMANDS

    defaults = SearchConfig("")
    more = "".join(
        f"\n  cp-search {name} FOLDER{' NUMBER' if name == 'export' else ''}: {text}" for name, text in COMMANDS.items()
    )
    made = CommandParser(
        "cp-search", description=DESCRIPTION + more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("base", help="timm name of the base, such as resnet50 or vit_small_patch16_224")

    what = made.add_argument_group("what to look for")
    what.add_argument(
        "--budget",
        metavar="BUDGETS",
        help="separated by commas: a share of the base's MACs (0.7x) or MACs (2.9G); params=12M; latency=15ms. "
        "Default 0.7x, or 1x with --keep-accuracy",
    )
    what.add_argument(
        "--keep-accuracy",
        type=float,
        metavar="POINTS",
        help="the cheapest within so many points of the base, in place of the most accurate",
    )
    what.add_argument("--space", metavar="FILE", help="YAML file of what may be chosen; default suits the base")
    what.add_argument(
        "--pool-kwargs", nargs="*", default=[], metavar="KEY=VALUE", help="options of every pool (mode, support_range)"
    )
    what.add_argument(
        "--model-kwargs", nargs="*", metavar="KEY=VALUE", help="arguments of the base; default the recipe's, if its own"
    )

    data = made.add_argument_group("data and training")
    data.add_argument("--dataset", help="data set by timm's name (torch/cifar10); default the recipe's")
    data.add_argument("--data-dir", help="folder of the data set; alone: an image folder with train/ and val/")
    data.add_argument("--recipe", help="recipe file or bundled name; default digits, or default with other data")
    data.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a recipe's value")
    data.add_argument(
        "--val-fraction",
        type=float,
        default=defaults.val_fraction,
        help="share of the training split held out (default %(default)s)",
    )

    how = made.add_argument_group("how to search")
    how.add_argument(
        "--trials", type=int, default=defaults.trials, help="candidates to try, the base included (default %(default)s)"
    )
    how.add_argument("--evaluator", default=defaults.evaluator, help=_choices(EVALUATORS))
    how.add_argument("--sampler", default=defaults.sampler, help=_choices(SAMPLERS))
    how.add_argument("--objective", default=defaults.objective, help=_choices(OBJECTIVES))
    how.add_argument("--early-stop", default=defaults.early_stop, help=_choices(STOPPERS))
    how.add_argument("--trial-seconds", type=float, metavar="S", help="the longest that a candidate may train")
    how.add_argument(
        "--supernet-epochs", type=int, metavar="N", help="epochs of training shared weights; default the recipe's"
    )
    how.add_argument(
        "--finalists",
        type=int,
        default=defaults.finalists,
        help="trained after shared weights scored all (default %(default)s)",
    )
    how.add_argument("--compiled", action="store_true", help="latencies are those of what torch.compile makes")
    how.add_argument(
        "--seed", type=int, default=defaults.seed, help="seed of sampler and trainings (default %(default)s)"
    )

    where = made.add_argument_group("where")
    where.add_argument("--output", help="folder to write; default runs/BASE")
    where.add_argument(
        "--storage", metavar="ADDRESS", help="of the study: journal:PATH or a database; default a file in the output"
    )
    where.add_argument(
        "--keep-checkpoints",
        type=int,
        default=defaults.keep_checkpoints,
        metavar="N",
        help="members of the front whose weights are kept, beside winner and baselines (default %(default)s)",
    )
    where.add_argument("--executor", default=defaults.executor, help=_choices(EXECUTORS))
    where.add_argument("--parallel", type=int, metavar="N", help="candidates at a time under Ray")
    where.add_argument("--address", help="of a Ray cluster; default one on this machine")
    where.add_argument(
        "--cpus", type=float, default=defaults.cpus, help="processors of a candidate under Ray (default %(default)s)"
    )
    where.add_argument(
        "--gpus", type=float, default=defaults.gpus, help="GPUs of a candidate under Ray (default %(default)s)"
    )
    made.add_argument("--plan", action="store_true", help="tell what the search takes, and search nothing")
    return made


def _choices(names: Iterable[str]) -> str:
    return f"{', '.join(names)} (default %(default)s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``cp-search``; returns the exit code."""
    return run_command(_run, arguments, "cp-search")


def _run(arguments: Sequence[str] | None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from .subcommands import COMMANDS, run_subcommand
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("cp-search needs Optuna, which is not installed; pip install 'cp-vision[search]'") from error
    from ..config.schema import SearchConfig

    if words and words[0] in COMMANDS:
        config = run_subcommand(words[0], words[1:])
        if config is not None:
            _search(config, plan_only=False, command=shlex.join(["cp-search", *words]))
        return
    args = parser().parse_args(words)
    plain = (
        *(
            "base",
            "budget",
            "keep_accuracy",
            "space",
            "evaluator",
            "recipe",
            "dataset",
            "data_dir",
            "trials",
            "storage",
        ),
        *(
            "seed",
            "sampler",
            "objective",
            "early_stop",
            "trial_seconds",
            "val_fraction",
            "supernet_epochs",
            "finalists",
        ),
        *("compiled", "keep_checkpoints", "executor", "parallel", "address", "cpus", "gpus"),
    )
    config = SearchConfig(
        **{name: getattr(args, name) for name in plain},
        overrides=tuple(args.set),
        model_kwargs=None if args.model_kwargs is None else parse_pairs(args.model_kwargs, "--model-kwargs"),
        pool_options=parse_pairs(args.pool_kwargs, "--pool-kwargs"),
        output=f"runs/{args.base}" if args.output is None else args.output,
        command=shlex.join(["cp-search", *words]),
    )
    _search(config, args.plan, config.command)


def _search(config: SearchConfig, plan_only: bool, command: str) -> None:
    from ..config.addresses import hide_password
    from ..config.schema import CONFIG_FILE
    from ..runner import Search
    from .display import Progress, plan, show_forecast, summary
    from .plan import forecast

    search = Search(config)
    print(plan(search), flush=True)
    if plan_only:
        print(show_forecast(forecast(search), search))
        return
    progress = Progress(config.candidates)
    try:
        results = search.run(progress)
    except KeyboardInterrupt:
        if hide_password(command) != command:
            command = "the one that was given"
            if (search.output / CONFIG_FILE).exists():
                command += f", or {shlex.join(['cp-search', 'resume', str(config.output)])}"
        print(f"\nStopped. The same command goes on: {command}", file=sys.stderr)
        raise
    finally:
        progress.close()
    print(summary(results, search, search.refused, search.exhausted))


if __name__ == "__main__":
    sys.exit(main())
