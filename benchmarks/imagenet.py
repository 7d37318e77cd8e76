"""ImageNet: trained models under several budgets, fitted, then distilled. Ready to run, and not run yet.

    python benchmarks/imagenet.py --data-dir imagenet --output runs/imagenet               # one GPU, base after base
    sbatch examples/imagenet.sbatch imagenet runs/imagenet                                 # Slurm: an array, a GPU each
    python benchmarks/imagenet.py --data-dir imagenet --output runs/imagenet --ray auto    # a Ray cluster, a GPU each
    python benchmarks/imagenet.py --output runs/imagenet --report                          # the table, of what is there

``imagenet`` has ``train/`` and ``val/`` with a folder for each class. For each base and budget it runs

    cp-search BASE --evaluator fit --weights pretrained --budget BUDGET --distil-epochs 10 --data-dir imagenet ...

one budget after the other in the folder of the base, so that whatever is killed goes on with the budget that it was at.
``--hours`` tells what that should take on one GPU, by an assumption that it prints.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from benchmarks.imagenet_report import rows, table
from cp_vision import UserError, count_macs
from cp_vision.search.cli.main import main as cp_search
from cp_vision.search.outputs.fit_results import read_results
from cp_vision.shared.command_line import CommandError, run_command

__all__ = ["BASES", "Base", "hours", "main", "parser"]

IMAGES, FIT_IMAGES, EPOCHS = 1_281_167, 1024, 10
# The best, the best without pools and the best of dropped blocks are distilled for each budget.
_FORMS = 3


@dataclass(frozen=True)
class Base:
    """A base and its budgets.

    Attributes:
        name: of timm, with the tag of its weights.
        title: what a table calls it.
        budgets: of ``--budget``, the largest first.
    """

    name: str
    title: str
    budgets: tuple[str, ...]


BASES = {
    "deit_s": Base("deit_small_patch16_224.fb_in1k", "DeiT-S", ("0.8x", "0.7x", "0.6x", "0.5x")),
    # Two of them are what others cut DeiT-B to.
    "deit3_b": Base("deit3_base_patch16_224.fb_in1k", "DeiT-III-B", ("0.7x", "0.5x", "6.8G", "4.16G")),
    "convnext_s": Base("convnext_small.fb_in1k", "ConvNeXt-S", ("0.9x", "0.8x", "0.7x", "0.5x")),
    "resnet50": Base("resnet50.a1_in1k", "ResNet-50", ("0.9x", "0.8x", "0.7x", "0.5x")),
}


def hours(base: Base, epochs: int, tflops: float) -> float:
    """Hours of one GPU that distilling a base's models takes; fits take minutes beside it.

    An image costs a forward pass of the base, and one forward and two backward of the model, of two operations a MAC.

    Args:
        base: the base.
        epochs: of distillation.
        tflops: 10^12 operations a second that the GPU sustains in float32.
    """
    with torch.device("meta"):
        macs = count_macs(timm.create_model(base.name))
    limits = [float(b[:-1]) * macs if b.endswith("x") else float(b[:-1]) * 1e9 for b in base.budgets]
    of_image = sum(_FORMS * 2 * (macs + 3 * limit) for limit in limits)
    return of_image * IMAGES * epochs / (tflops * 1e12) / 3600


def search(base: Base, arguments: argparse.Namespace) -> int:
    """Put a base under its budgets, but for those that are done; the exit status of what failed, or 0."""
    folder = arguments.output / base.name
    done = {point["budget"] for point in (read_results(folder) or {"points": []})["points"]}
    words = [base.name, "--evaluator", "fit", "--weights", arguments.weights, "--data-dir", str(arguments.data_dir)]
    words += ["--fit-images", str(arguments.fit_images), "--distil-epochs", str(arguments.epochs)]
    words += ["--recipe", str(arguments.recipe)]
    words += [word for value in arguments.set for word in ("--set", value)]
    for budget in arguments.budgets or base.budgets:
        if budget not in done and (code := cp_search([*words, "--budget", budget, "--output", str(folder)])):
            return code
    return 0


def search_with_ray(bases: Sequence[Base], arguments: argparse.Namespace) -> None:
    """The same as tasks of a Ray cluster, all bases at once.

    Raises:
        CommandError: a search failed.
    """
    import ray

    ray.init(address="local" if arguments.ray == "here" else arguments.ray)
    task = ray.remote(num_cpus=arguments.cpus, num_gpus=arguments.gpus, max_retries=3)(_search_and_tell)
    try:
        told = ray.get([task.remote(base, arguments) for base in bases])
    finally:
        ray.shutdown()
    if failed := [f"{base.title}: {why}" for base, why in zip(bases, told, strict=True) if why]:
        raise CommandError("; ".join([*failed, "the same command goes on"]))


def _search_and_tell(base: Base, arguments: argparse.Namespace) -> str:
    """Search in a process whose terminal nobody sees; why it failed, or nothing."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        failed = search(base, arguments)
    return errors.getvalue().strip().splitlines()[-1] if failed else ""


def report(bases: Sequence[Base], output: Path) -> str:
    """The table of what is there."""
    found = []
    for base in bases:
        if results := read_results(output / base.name):
            found += rows(results, base.title)
    return table(found)


def main(argv: Sequence[str] | None = None) -> None:
    """Search, and print the table."""
    arguments = parser().parse_args(argv)
    named = [BASES.get(name, Base(name, name, ())) for name in arguments.base or BASES]
    if arguments.hours:
        for base in named:
            print(f"{base.title}: {hours(base, arguments.epochs, arguments.tflops):.0f} h")
        print(f"if a GPU sustains {arguments.tflops:g} TFLOP/s in float32 and images are read as fast as it takes them")
        return
    if not arguments.report:
        if arguments.data_dir is None:
            raise UserError("--data-dir is missing; name a folder with train/ and val/")
        if unknown := [base.name for base in named if not (arguments.budgets or base.budgets)]:
            raise UserError(f"base {unknown[0]!r} is not one of {', '.join(BASES)}; give --budgets with another")
        # Workers of a cluster run in folders of their own.
        arguments.data_dir, arguments.output = arguments.data_dir.resolve(), arguments.output.resolve()
        if arguments.ray:
            search_with_ray(named, arguments)
        elif failed := [base.title for base in named if search(base, arguments)]:
            raise CommandError(f"failed: {', '.join(failed)}; the same command goes on")
    print(report(named, arguments.output))


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data-dir", type=Path, help="a folder with train/ and val/")
    made.add_argument("--output", type=Path, default=Path("runs/imagenet"), help="a folder for each base")
    made.add_argument("--base", nargs="+", help=f"of {', '.join(BASES)}, or timm names with --budgets (default all)")
    made.add_argument("--budgets", nargs="+", help="in place of those of the bases")
    made.add_argument("--epochs", type=int, default=EPOCHS, help="of distillation (default %(default)s)")
    made.add_argument("--fit-images", type=int, default=FIT_IMAGES, help="default %(default)s")
    made.add_argument("--weights", default="pretrained", help="in place of those of the name")
    made.add_argument("--recipe", default="default", help="how images are read (default %(default)s)")
    made.add_argument("--set", action="append", default=["batch_size=256"], help="of the recipe (workers=16)")
    made.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster, auto, or here to start one")
    made.add_argument("--cpus", type=float, default=8, help="of a base under Ray (default %(default)s)")
    made.add_argument("--gpus", type=float, default=1, help="of a base under Ray (default %(default)s)")
    made.add_argument("--report", action="store_true", help="the table of what is there, nothing else")
    made.add_argument("--hours", action="store_true", help="what it should take, nothing else")
    made.add_argument("--tflops", type=float, default=25, help="that --hours assumes (default %(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(run_command(main, None, "imagenet"))
