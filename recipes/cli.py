"""``cp-train``: training by a recipe from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from cp_vision.command_line import CommandParser, run_command

from .fit import Training, score_folder
from .schema import load_recipe

__all__ = ["main"]

DESCRIPTION = """\
Train a model by a recipe, or score a trained one. Examples:

  cp-train digits --output runs/digits-train
  cp-train digits --set model=cp_resnet18 --set epochs=5
  cp-train digits --eval runs/digits/best
"""


def parser() -> CommandParser:
    """The arguments of ``cp-train``."""
    made = CommandParser("cp-train", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("recipe", help="recipe file, or the name of a bundled one (digits)")
    made.add_argument("--data-dir", help="folder of the data set, in place of the recipe's")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a recipe's value")
    made.add_argument("--output", help="folder to write, new or empty; default runs/train-RECIPE")
    made.add_argument("--eval", metavar="FOLDER", help="score this local-dir: folder instead of training")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``cp-train``; returns the exit code."""
    return run_command(_train, arguments, "cp-train")


def _train(arguments: Sequence[str] | None) -> None:
    args = parser().parse_args(arguments)
    recipe = load_recipe(args.recipe, args.set)
    if args.data_dir is not None:
        recipe = recipe.with_values(data_dir=args.data_dir)
    if args.eval is not None:
        scores = score_folder(recipe, Path(args.eval))
        print(f"{args.eval}: top-1 {scores['top1']:.2f} %, top-5 {scores['top5']:.2f} %, loss {scores['loss']:.4f}")
        return
    output = Path(args.output or f"runs/train-{Path(args.recipe).stem}")
    training = Training(recipe, output)
    with tqdm(total=recipe.epochs, unit="epoch") as bar:

        def on_epoch(epoch: int, epochs: int, loss: float) -> None:
            bar.total = epochs
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update(epoch - bar.n)

        summary = training.run(on_epoch)
    print(f"{recipe.model}: top-1 {summary['top1']:.2f} % on {recipe.val_split}, {summary['macs']:,} MACs")
    print(f'Load it:  timm.create_model("local-dir:{output}", pretrained=True)')
