"""``cp-search``: the search from the command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cp_vision.shared.command_line import CommandParser, default_output, run_command
from cp_vision.shared.errors import UserError
from cp_vision.shared.held_back import held_back
from cp_vision.shared.interrupts import interrupts_unwrapped
from cp_vision.shared.validation import FieldError

from ..config.addresses import hide_password
from ..config.files import read_values
from ..config.schema import CONFIG_FILE, SearchConfig
from .arguments import add_options, given_values, spelled
from .subcommand_arguments import COMMANDS, QUIET, WORDS, subcommand_parser

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
    more = "".join(f"\n  cp-search {name} {WORDS.get(name, 'FOLDER')}: {text}" for name, text in COMMANDS.items())
    made = CommandParser(
        "cp-search", description=DESCRIPTION + more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file of any of these, the base too, by the names of SearchConfig; what stands here wins",
    )
    made.add_argument("--quiet", action="store_true", help=QUIET)
    made.add_argument("--plan", action="store_true", help="tell what the search takes, and search nothing")
    add_options(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``cp-search``; returns the exit code."""
    return run_command(_run, arguments, "cp-search")


def _run(arguments: Sequence[str] | None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = shlex.join(["cp-search", *words])
    if words and words[0] in COMMANDS:
        # Mistakes are told before what takes seconds is imported.
        args = subcommand_parser(words[0]).parse_args(words[1:])
        with _needs_optuna():
            from .subcommands import run_subcommand
        config = run_subcommand(words[0], args)
        if config is not None:
            _search(config, plan_only=False, command=command, quiet=args.quiet)
        return
    args = parser().parse_args(words)
    _search(_config(args, command), args.plan, command, args.quiet)


def _config(args: argparse.Namespace, command: str) -> SearchConfig:
    """What is asked for: by the command line, else by the file."""
    file = {} if args.config is None else read_values(args.config)
    values = given_values(args, file)
    values = {"output": default_output(str(values.get("base")), values.get("data_dir")), **values, "command": command}
    try:
        return SearchConfig(**values)
    except FieldError as error:
        name = error.field.partition(".")[0]
        if name in vars(args) or name not in values:
            raise UserError(f"{spelled(error.field)} {error.problem}") from error
        raise UserError(f"config {args.config}: {error}") from error


@contextmanager
def _needs_optuna() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("cp-search needs Optuna, which is not installed; pip install 'cp-vision[search]'") from error


def _fit(config: SearchConfig, plan_only: bool, command: str, quiet: bool) -> None:
    with _needs_optuna():
        from ..outputs.fit_results import read_results
        from ..outputs.report.fit_page import headline
        from ..run_fit import FitSearch
        from .fit_display import FitProgress, show_fit_forecast

    with held_back():
        search = FitSearch(config)
    if plan_only:
        print(show_fit_forecast(search.forecast(), search.budgets))
        return
    progress = FitProgress(quiet)
    try:
        with interrupts_unwrapped():
            found = search.run(progress)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on: {command}", file=sys.stderr)
        raise
    finally:
        progress.close()
    print(found)
    print(f"\n{headline(read_results(search.output) or {})}")
    for point in found.points:
        print(f'Load it:  timm.create_model("local-dir:{search.output / point.budget}", pretrained=True)')
    print(f"Report:   {search.output / 'report.html'}")


def _search(config: SearchConfig, plan_only: bool, command: str, quiet: bool = False) -> None:
    if config.evaluator == "fit":
        _fit(config, plan_only, command, quiet)
        return
    with _needs_optuna():
        from ..runner import Search
        from .display import Progress, plan, show_forecast, summary
        from .plan import forecast

    with held_back():
        search = Search(config, planned=plan_only)
    print(plan(search), flush=True)
    if plan_only:
        print(show_forecast(forecast(search), search))
        return
    progress = Progress(config.candidates, quiet)
    try:
        with interrupts_unwrapped():
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
    print(summary(results, search, search.exhausted))


if __name__ == "__main__":
    sys.exit(main())
