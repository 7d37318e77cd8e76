"""``cp-train``: training by a recipe from the command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cp_vision.shared.command_line import CommandError, CommandParser, default_output, run_command
from cp_vision.shared.errors import UserError
from cp_vision.shared.held_back import held_back

from .data import MAX_UNREADABLE
from .data.failures import is_killed_worker, reason_of
from .recipe.allowed import allowed
from .recipe.checks import notice
from .recipe.keys import Recipe, bundled_recipes, read_recipe

# Torch and timm take seconds to import: what needs them is imported where it is called, so that --help and mistakes
# answer at once.
if TYPE_CHECKING:
    from .processes import Processes

__all__ = ["main"]

DESCRIPTION = """\
Train a model by a recipe, or score a trained one. Stopped in any way, the same command goes on. Examples:

  cp-train digits --output runs/digits-train
  cp-train digits --set model=cp_resnet18 --set epochs=5
  cp-train cp_resnet50_a3 --data-dir ~/imagenet
  torchrun --nproc-per-node 8 --no-python cp-train cp_resnet50_a2 --data-dir ~/imagenet
  cp-train cp_vit_small_deit --dry-run
  cp-train digits --eval runs/digits/0.5x
  cp-train --recipes
  cp-train --keys
"""


class _Tell(argparse.Action):
    """An option that prints something and ends the command, like ``--help``."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it."""
        print(self.const())
        parser.exit()


def _recipes() -> str:
    """Every bundled recipe, and the first line of its header."""
    headers = {path.stem: path.read_text().partition("\n")[0].removeprefix("# ") for path in bundled_recipes()}
    return "\n".join(f"{name:20} {header}" for name, header in headers.items())


def _keys() -> str:
    """Every key of a recipe: its default, and what is allowed."""
    defaults = Recipe.model_validate({}).model_dump(mode="json")
    return "\n".join(f"{key:22} {json.dumps(defaults[key]):14} {allowed(Recipe, key)}" for key in defaults)


def parser() -> CommandParser:
    """The arguments of ``cp-train``."""
    made = CommandParser("cp-train", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("recipe", help="recipe file, or the name of a bundled one (digits)")
    made.add_argument("--recipes", action=_Tell, nargs=0, const=_recipes, help="list the bundled recipes and end")
    made.add_argument(
        "--keys", action=_Tell, nargs=0, const=_keys, help="list the keys of a recipe, their defaults, and end"
    )
    made.add_argument("--data-dir", help="folder of the data set, in place of the recipe's")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a recipe's value")
    made.add_argument(
        "--output", help="folder to write, new or that of the same training; default runs/train-RECIPE-DATA"
    )
    made.add_argument(
        "--max-unreadable",
        type=int,
        default=MAX_UNREADABLE,
        metavar="N",
        help=f"images of a split that may be unreadable; they are skipped and reported (default {MAX_UNREADABLE})",
    )
    made.add_argument("--quiet", action="store_true", help="show no progress; mistakes and results alone")
    made.add_argument(
        "--resume",
        metavar="FILE",
        help="go on from another training's checkpoint.pt, which may have had other values (more epochs), in a new "
        "--output",
    )
    only = made.add_mutually_exclusive_group()
    only.add_argument(
        "--eval", metavar="MODEL", help="score this instead of training: a local-dir: folder, weights, or a timm name"
    )
    only.add_argument("--dry-run", action="store_true", help="take a step on random images and tell what a run takes")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``cp-train``; returns the exit code."""
    return run_command(_train, arguments, "cp-train")


def _is_primary() -> bool:
    """Whether this process, of those that torchrun or Slurm started, is the one that speaks."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def _read(args: argparse.Namespace) -> Recipe:
    """The recipe as the arguments change it."""
    try:
        recipe, note = read_recipe(args.recipe, args.set)
        if args.data_dir is not None:
            recipe = recipe.with_values(data_dir=args.data_dir)
        if args.max_unreadable < 0:
            raise UserError(f"--max-unreadable {args.max_unreadable} must be 0 or more")
    except UserError as error:
        error.told_elsewhere = not _is_primary()
        raise
    if note is not None and _is_primary():
        print(f"cp-train: {note}", file=sys.stderr)
    return recipe


def _train(arguments: Sequence[str] | None) -> None:
    args = parser().parse_args(arguments)
    recipe = _read(args)
    if args.dry_run:
        if _is_primary():
            with held_back():
                _dry_run(recipe)
        return
    from .processes import joined_processes

    with joined_processes() as processes:
        if args.eval is not None:
            from .evaluation.score_model import score_model

            with held_back():
                scores = score_model(recipe, args.eval, processes, args.max_unreadable)
            if processes.primary:
                if scores["unreadable"]:
                    print(f"skipped {scores['unreadable']}")
                print(f"{args.eval}: {_scores(scores)}, loss {scores['loss']:.4f}")
            return
        output = Path(args.output or default_output(f"train-{Path(args.recipe).stem}", recipe.data_dir))
        try:
            _fit(recipe, output, processes, args)
        except CommandError:
            raise
        except RuntimeError as error:
            # Torch tells it wherever this process is, before and after the training, too.
            if not is_killed_worker(error):
                raise
            raise CommandError(f"{reason_of(error)}; the same command goes on") from error


def _fit(recipe: Recipe, output: Path, processes: Processes, args: argparse.Namespace) -> None:
    from .progress import Progress
    from .run.stop_signals import stop_signals
    from .run.training_run import Training

    if args.quiet:
        # What wandb tells of a run.
        os.environ.setdefault("WANDB_SILENT", "true")
    if recipe.log_wandb:
        # On a full disk every line of wandb's own log is a traceback, and its service, which ended, one of asyncio's.
        logging.raiseExceptions = False
        logging.getLogger("asyncio").setLevel(logging.ERROR)
    with contextlib.ExitStack() as checking:
        checking.enter_context(held_back())
        training = Training(recipe, output, processes, args.max_unreadable, args.resume)
        if processes.primary:
            _notice(recipe)
        for problem in training.problems if processes.primary else ():
            print(f"cp-train: {problem}; going on from the one before", file=sys.stderr)
        if training.finished is not None:
            if args.resume is not None:
                where = f"--resume {args.resume!r}: output {str(output)!r}"
                raise UserError(f"{where} is finished; choose another --output")
            summary = training.finished
        else:
            with Progress(training, args.quiet) as progress, stop_signals() as stop:

                def on_begin() -> None:
                    checking.close()
                    progress.on_begin()

                summary = training.run(progress.on_update, progress.on_epoch, on_begin, stop)
    if not processes.primary:
        return
    for problem in summary["unreadable"]:
        print(f"skipped {problem}")
    if summary["skipped"]:
        print(f"skipped {summary['skipped']} updates whose loss was not finite")
    best = summary["best"]
    folder, weights = ("ema", "averaged weights, ") if recipe.model_ema else ("last", "")
    print(f"{recipe.model}: {weights}{_scores(summary)} on {recipe.val_split}, {summary['macs']:,} MACs")
    if "plain" in summary:
        print(f"plain weights, in {str(output / 'last')!r}: {_scores(summary['plain'])}")
    print(f"best epoch: {best['epoch']} of {summary['epochs']}, {_scores(best)}")
    print(f'Load it:  timm.create_model("local-dir:{output / folder}", pretrained=True)')


def _notice(recipe: Recipe) -> None:
    text = notice(recipe)
    if text is not None:
        print(f"cp-train: {text}", file=sys.stderr)


def _scores(scores: dict[str, float]) -> str:
    return f"top-1 {scores['top1']:.2f} %, top-5 {scores['top5']:.2f} %"


def _dry_run(recipe: Recipe) -> None:
    from cp_vision.cost.macs import format_macs

    from .training.dry_run import dry_run

    found = dry_run(recipe)
    _notice(recipe)
    print(
        f"{recipe.model}: {format_macs(found.params)} parameters, {format_macs(found.macs)} MACs for an image of "
        f"{found.pixels[0]} x {found.pixels[1]} pixels"
    )
    smaller = (
        f", fewer than the recipe's {recipe.batch_size} for this device" if found.images < recipe.batch_size else ""
    )
    print(f"one step with {found.images} images{smaller}: loss {found.loss:.4f}, {found.seconds:.2f} s,", end=" ")
    print(f"{found.memory / 2**30:.2f} GiB of memory")
    whose = "ImageNet's " if found.assumed else ""
    print(
        f"the full run: {recipe.epochs} epochs of {whose}{found.dataset:,} images, {found.batch} an update; on this "
        f"device {_duration(found.hours)}"
    )


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} minutes"
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:,.0f} days"


if __name__ == "__main__":
    sys.exit(main())
