"""Trained models under budgets, distilled from their bases for a fifth of the bases' own training.

    python benchmarks/compress_distilled.py --data-dir DIR --base fashion_resnet --budgets 0.6x 0.5x

What ``compress.py`` finds for each budget (all kinds, without pools, dropped blocks alone) and Torch-Pruning's channels
(``pip install torch-pruning==1.6.1``; as it leaves them, and with our least squares), all distilled alike: the squared
error of the last features over unlabelled images, watched on held-out ones, with several seeds (orders of the images).
Appends a line for each distillation to ``results/distilled_BASE.csv``, goes on from what is there, and writes
``results/distilled.md``. A minute or two of a core a line.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import csv
import datetime
import functools
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from benchmarks.compress import CASES, RESULTS, Case, bench_of, nearest_pruned, right
from benchmarks.compress_report import FORMS
from benchmarks.fashion_mnist import open_split, resize
from benchmarks.fashion_models import MODELS
from benchmarks.replacement_report import read_csv, table
from cp_vision import count_macs
from cp_vision.search import compress
from cp_vision.search.fit.distil import distil
from cp_vision.search.fit.workbench import Workbench
from cp_vision.shared.command_line import run_command

# By budget and form: score, importance, model.
Pruned = Callable[[str], dict[str, tuple[float, str, nn.Module]]]

BASES = tuple(name for name in CASES if name in MODELS)
SEEDS = 3
# Of a fifth of the base's training two passes take three parts of five, and trying rates the others.
_EPOCHS, _SHARE, _BATCH = 2, 0.2 * 0.6, 64


_ABOUT = """\
# Trained models under budgets, distilled

`python benchmarks/compress_distilled.py --data-dir DIR --base BASE`; {versions}, CPU, float32. A distillation takes a
fifth of the images that its base was trained with, without labels. Accuracies are of 10,000 test images, in percent; of
the base with its standard error, after distillation with that of the mean over seeds (orders of the images); KL
divergence from the base is of held-out images. Where the untrained model was better on these, it is kept.
"""


class Line(NamedTuple):
    """A distillation.

    Attributes:
        base: the base.
        budget: the budget.
        form: what the model may be made of.
        seed: the order of the images.
        macs: as a share of the base's.
        before: KL divergence from the base on held-out images before, in nats.
        score: the same after.
        epochs: after which it was best.
        untrained: accuracy on test images before, in percent.
        accuracy: the same after.
        date: of the run.
    """

    base: str
    budget: str
    form: str
    seed: int
    macs: float
    before: float
    score: float
    epochs: int
    untrained: float
    accuracy: float
    date: str


def measure(
    name: str, case: Case, bench: Workbench, pruned: Pruned, training: Tensor, budget: str, seed: int, folder: Path
) -> Iterator[Line]:
    """Distil every form with one order of the images; the folder keeps what is fitted for other seeds and budgets."""
    batches = training[torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))].split(_BATCH)
    date = f"{datetime.date.today()}"
    result = compress(
        *(case.model, case.unlabelled, budget),
        **{"evaluate": partial(right, case), "epochs": _EPOCHS, "training": batches, "folder": folder},
    )
    (point,) = result.points
    for outcome in (point.best, *point.counterparts.values()):
        before: Any = outcome.before
        after: Any = outcome
        share, scores = outcome.macs / result.base_macs, (before.score, after.score, after.epochs)
        untrained, accuracy = before.accuracy.value, after.accuracy.value
        yield Line(name, budget, after.name, seed, share, *scores, untrained, accuracy, date)
    for form, (score, _, model) in pruned(budget).items():
        trained, least, epochs = distil(bench, model, _EPOCHS, batches, folder / "pruned")
        share, untrained, accuracy = count_macs(model) / result.base_macs, _top1(case, model), _top1(case, trained)
        yield Line(name, budget, form, seed, share, score, least, epochs, untrained, accuracy, date)


def _top1(case: Case, model: nn.Module) -> float:
    return 100 * float(right(case, model).mean())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="where trained weights and images are kept")
    parser.add_argument("--base", choices=BASES, required=True)
    parser.add_argument("--budgets", nargs="+", default=["0.6x", "0.5x"])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args(argv)
    name, file = arguments.base, RESULTS / f"distilled_{arguments.base}.csv"
    case, trained = CASES[name](arguments.data_dir), MODELS[name]
    count = round(_SHARE * trained.settings["epochs"] * trained.updates) * _BATCH // _EPOCHS
    images = open_split(arguments.data_dir, True)[0]
    # Those that are fitted to, and held out, are left out.
    training = resize(images[len(case.unlabelled) : len(case.unlabelled) + count], trained.size)
    bench = bench_of(case)
    # Of a budget the same for all seeds.
    pruned = functools.cache(partial(nearest_pruned, bench))
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(arguments.seeds):
            for budget in arguments.budgets:
                if any((row["budget"], row["seed"]) == (budget, str(seed)) for row in read_csv(file)):
                    continue
                lines = list(measure(name, case, bench, pruned, training, budget, seed, Path(scratch)))
                print(*lines, sep="\n", flush=True)
                _append(file, lines)
    report()


def _append(file: Path, lines: Sequence[Line]) -> None:
    new = not file.exists()
    with file.open("a", newline="") as table_file:
        writer = csv.writer(table_file, lineterminator="\n")
        if new:
            writer.writerow(Line._fields)
        writer.writerows([f"{value:.5g}" if isinstance(value, float) else value for value in line] for line in lines)


def report() -> None:
    """Write ``distilled.md`` of all that was measured."""
    lines = [_ABOUT.format(versions=f"torch {torch.__version__}, timm {timm.__version__}")]
    for base in BASES:
        if not (rows := read_csv(RESULTS / f"distilled_{base}.csv")):
            continue
        lines += [f"## {base}\n"]
        of_base = next(row for row in read_csv(RESULTS / f"compress_{base}.csv") if row["form"] == "base")
        lines += [f"The base: {float(of_base['accuracy']):.2f} ± {float(of_base['error']):.2f} %.\n"]
        cells = []
        for budget, form in dict.fromkeys((row["budget"], row["form"]) for row in rows):
            own = [row for row in rows if (row["budget"], row["form"]) == (budget, form)]
            values = [[float(row[key]) for row in own] for key in ("macs", "before", "untrained", "score", "accuracy")]
            macs, before, untrained, score, accuracy = (statistics.mean(column) for column in values)
            error = f" ± {statistics.stdev(values[-1]) / len(own) ** 0.5:.2f}" if len(own) > 1 else ""
            after = f"{accuracy:.2f}{error} ({len(own)} seed{'s' * (len(own) > 1)})"
            title = FORMS[form]
            cells.append([budget, title, f"{macs:.3f}x", f"{before:.2g}", f"{untrained:.2f}", f"{score:.2g}", after])
        lines += table(["budget", "made of", "MACs", "KL before", "top-1 before", "KL after", "top-1 after"], cells)
    (RESULTS / "distilled.md").write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(run_command(main, None, "compress_distilled"))
