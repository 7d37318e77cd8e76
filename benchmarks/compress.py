"""Trained models under budgets, from unlabelled images and without training: dropped blocks, maps, maps and pools.

    python benchmarks/compress.py --data-dir DIR --base elpv_dinov2

DINOv2's ViT-S/14 and EfficientNet-Lite0 fine-tuned on solar cells (packages of the ``bench`` extra) on 256 and 512
images, or models that were trained on Fashion-MNIST, DINOv2's among them, on 512; their weights are made where ``DIR``
lacks them. One base at a time: a quarter of an hour of a core for ViT-S, minutes for the others. ``--parts pruning``
measures Torch-Pruning's channels at the same budgets (``pip install torch-pruning==1.6.1``), the best by divergence of
two importances, as it leaves them and with our least squares for the layers behind them. Writes
``results/compress_BASE.csv``, and ``results/compress.md`` of all bases that were measured.
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
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from benchmarks.channel_pruning import IMPORTANCES, pruned, read_outs
from benchmarks.compress_report import more_in_words, report
from benchmarks.elpv import elpv_images, elpv_labels, elpv_split
from benchmarks.elpv_models import MODELS as OF_ELPV
from benchmarks.elpv_models import finetuned_on_elpv
from benchmarks.fashion_mnist import fill, open_split, resize
from benchmarks.fashion_models import MODELS as OF_FASHION
from benchmarks.fashion_models import trained_on_fashion
from benchmarks.package_files import INSTALL
from benchmarks.refit_read_outs import refit_read_outs
from benchmarks.replacement_report import read_csv
from cp_vision import count_macs
from cp_vision.search import Compressed, compress
from cp_vision.search.fit.accuracy import evaluated
from cp_vision.search.fit.build import sized
from cp_vision.search.fit.images import FitImages, Images, is_held_out
from cp_vision.search.fit.kinds import DEFAULT_KINDS
from cp_vision.search.fit.workbench import Workbench
from cp_vision.shared.command_line import run_command

RESULTS = Path(__file__).parent / "results"
PARTS = ("all kinds", "no parts", "pruning")
BUDGETS = {
    "elpv_dinov2": ("0.75x", "0.6x", "0.5x", "0.4x", "0.3x"),
    "elpv_lite0": ("0.9x", "0.8x", "0.7x", "0.6x", "0.5x"),
    "fashion_vit": ("0.75x", "0.6x", "0.5x", "0.4x", "0.3x"),
    "fashion_resnet": ("0.9x", "0.8x", "0.7x", "0.6x", "0.5x"),
    "fashion_convnext": ("0.9x", "0.8x", "0.7x", "0.6x", "0.5x"),
    "fashion_dinov2": ("0.75x", "0.6x", "0.5x", "0.4x", "0.3x"),
}


@dataclass(frozen=True)
class Case:
    """A trained model and its images.

    Attributes:
        model: the base.
        unlabelled: images to fit to, in random order.
        further: so many more for the fit at the end, fewer where there are no more.
        test: test images.
        labels: theirs.
    """

    model: nn.Module
    unlabelled: Tensor
    further: Callable[[int], Tensor]
    test: Tensor
    labels: Tensor


class Row(NamedTuple):
    """A model under a budget: a row of the CSV.

    Attributes:
        base: the base.
        images: unlabelled ones, a quarter of them held out.
        budget: the budget; empty for the base.
        form: what the model may be made of.
        macs: as a share of the base's.
        score: KL divergence from the base on held-out images, in nats.
        accuracy: on test images, in percent.
        error: its standard error.
        test: how many these are.
        refitted: whether the stand-ins are those fitted front to back.
        made: what was changed.
        pools: of the best, what it has over that without pools in points, with the error of pairs of images.
        further: images for the fit at the end, beside those that options were fitted to.
    """

    base: str
    images: int
    budget: str
    form: str
    macs: float
    score: float
    accuracy: float
    error: float
    test: int
    refitted: bool
    made: str
    pools: str = ""
    further: int = 0


def _of_elpv(name: str, count: int) -> Callable[[Path], Case]:
    def case(data_dir: Path) -> Case:
        model: Any = finetuned_on_elpv(name, data_dir)
        images = elpv_images(OF_ELPV[name].size, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
        train, _, test = elpv_split()

        def further(more: int) -> Tensor:
            return images[train[count : count + more]]

        return Case(model, images[train[:count]], further, images[test], elpv_labels()[test])

    return case


def _of_fashion(name: str, count: int) -> Callable[[Path], Case]:
    def case(data_dir: Path) -> Case:
        fill(data_dir)
        model = trained_on_fashion(name, data_dir)
        test, labels = open_split(data_dir, False)
        size, training = OF_FASHION[name].size, open_split(data_dir, True)[0]

        def further(more: int) -> Tensor:
            return resize(training[count : count + more], size)

        return Case(model, resize(training[:count], size), further, resize(test, size), labels)

    return case


CASES = {
    "elpv_dinov2": _of_elpv("elpv_dinov2", 256),
    "elpv_lite0": _of_elpv("elpv_lite0", 512),
    "fashion_vit": _of_fashion("fashion_vit", 512),
    **{name: _of_fashion(name, 512) for name in ("fashion_resnet", "fashion_convnext", "fashion_dinov2")},
}


def measure(name: str, case: Case, budgets: Sequence[str], **options: Any) -> tuple[list[Row], Compressed]:
    """Compress a base for each budget, and evaluate what is found on its test images."""
    result = compress(case.model, case.unlabelled, list(budgets), evaluate=partial(right, case), **options)
    count = len(case.test)
    of_base: Any = result.base_accuracy
    rows = [Row(name, result.images, "", "base", 1, 0, of_base.value, of_base.error, count, False, "")]
    for point in result.points:
        for outcome in (point.best, *point.counterparts.values()):
            accuracy: Any = outcome.accuracy
            share = outcome.macs / result.base_macs
            made = " ".join(option.key.replace("|", "=") for option in outcome.candidate)
            pools = "" if outcome is not point.best or point.pools_add is None else str(point.pools_add)
            own = (share, outcome.score, accuracy.value, accuracy.error, count, outcome.refitted, made, pools)
            rows.append(Row(name, result.images, point.budget, outcome.name, *own))
    return rows, result


def without_parts(name: str, case: Case, budgets: Sequence[str], tries: int) -> list[Row]:
    """The best of maps and pools, where no hidden unit, head or channel stays beside them."""
    kinds = [kind for kind in DEFAULT_KINDS if kind.startswith(("linear", "pool"))]
    rows, _ = measure(name, case, budgets, kinds=kinds, tries=tries, counterparts=False)
    return [row._replace(form="no parts") for row in rows if row.form == "best"]


def measure_pruning(name: str, case: Case, budgets: Sequence[str]) -> list[Row]:
    """Prune a base's channels to each budget, by the same images, and evaluate what is nearest to the base."""
    bench = bench_of(case)
    base_macs = count_macs(bench.model)
    rows = []
    for budget in budgets:
        for form, (score, importance, model) in nearest_pruned(bench, budget).items():
            accuracy: Any = evaluated(partial(right, case), model)
            share = count_macs(model) / base_macs
            own = (share, score, accuracy.value, accuracy.error, len(case.test), False, importance)
            rows.append(Row(name, bench.images.count, budget, form, *own))
            print(f"{budget}: {form}, {importance}: {share:.3f}x, KL {score:.4g}, {accuracy}", flush=True)
    return rows


def bench_of(case: Case) -> Workbench:
    """The base with all of its unlabelled images, as ``compress`` sees it."""
    images = Images(case.unlabelled, case.model, len(case.unlabelled))
    return Workbench(sized(case.model, images), images)


def nearest_pruned(bench: Workbench, budget: str) -> dict[str, tuple[float, str, nn.Module]]:
    """By form what Torch-Pruning leaves nearest to a base under a budget, such as 0.5x: score, importance, model."""
    base, limit = bench.model, int(float(budget.rstrip("x")) * count_macs(bench.model))
    fitted, names = torch.cat(list(FitImages(bench.images))), read_outs(base)
    found = [(one, model) for one in IMPORTANCES for model in pruned(base, fitted, limit, one)]
    refitted = [(one, refit_read_outs(model, base, fitted, names)) for one, model in found]
    if hasattr(base, "conv_head"):
        found += [(one, model) for one in IMPORTANCES for model in pruned(base, fitted, limit, one, False)]
    made = {"Torch-Pruning": found, "Torch-Pruning, refitted": refitted}
    scored = {
        form: [(bench.score_model(model), one, model) for one, model in of_form] for form, of_form in made.items()
    }
    return {form: min(entries, key=lambda entry: entry[0]) for form, entries in scored.items() if entries}


@torch.no_grad()
def right(case: Case, model: nn.Module) -> Tensor:
    """For each test image 1 where the model is right, else 0."""
    given = torch.cat([model(batch).argmax(1) for batch in case.test.split(64)])
    return (given == case.labels).double()


def _write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows; those of a file's other budgets and forms stay in it."""
    new = [[f"{value:.5g}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    seen = {(row.budget, row.form) for row in rows}
    known = [row for row in read_csv(path) if (row["budget"], row["form"]) not in seen]
    old = [[row.get(name, "") for name in Row._fields] for row in known]
    column = Row._fields.index("budget")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        # That of the base has no budget, and is the first.
        writer.writerows(sorted([*new, *old], key=lambda row: -float(row[column].rstrip("x") or "inf")))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure a base, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=INSTALL, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="where trained weights are kept")
    parser.add_argument("--base", choices=CASES, required=True)
    parser.add_argument("--budgets", nargs="+", help="of these alone; what was measured of others stays")
    parser.add_argument("--refit", type=int, default=0, help="further images for the fit of what was chosen")
    parser.add_argument("--tries", type=int, default=12, help="candidates with real scores for each choice")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS[:1], help="what is measured; figures of the others stay"
    )
    parser.add_argument("--library", type=Path, help="keep the fitted stand-ins in this folder")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    name, output = arguments.base, arguments.output
    case = CASES[name](arguments.data_dir)
    begin, wall = time.process_time(), time.perf_counter()

    def tell(done: int, total: int, what: str) -> None:
        print(f"{time.process_time() - begin:6.0f} s of a core: {done} of {total}, {what}", flush=True)

    budgets = arguments.budgets or BUDGETS[name]
    rows: list[Row] = []
    if "all kinds" in arguments.parts:
        more, options = case.further(arguments.refit), {"folder": arguments.library, "tries": arguments.tries}
        if len(more):
            options["to_refit"] = torch.cat([case.unlabelled[~is_held_out(0, len(case.unlabelled))], more])
        rows, result = measure(name, case, budgets, progress=tell, **options)
        rows = [row._replace(further=len(more)) for row in rows]
        print(result, result.table(), sep="\n\n", flush=True)
        spent = time.process_time() - begin, time.perf_counter() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{spent[0]:.0f} s of a core, {spent[1]:.0f} s, peak memory {peak:.0f} MiB of the whole process")
        steps = ", ".join(f"{step} {seconds:.0f}" for step, seconds in result.seconds.items())
        about = output / f"compress_{name}.txt"
        # A line for each run: its costs.
        runs = about.read_text().partition("\n\n")[0].splitlines() if arguments.budgets and about.exists() else []
        runs.append(
            f"- {', '.join(budgets)}{more_in_words(len(more))}: {spent[0]:.0f} s of processor time, "
            f"{torch.get_num_threads()} threads; "
            f"s by step: {steps}; peak memory {peak:.0f} MiB; torch {torch.__version__}, timm {timm.__version__}, "
            f"{datetime.datetime.now(datetime.UTC):%d %B %Y}"
        )
        about.write_text("\n".join(runs) + f"\n\n{result.table()}\n")
    if "no parts" in arguments.parts:
        rows += without_parts(name, case, budgets, arguments.tries)
    if "pruning" in arguments.parts:
        rows += measure_pruning(name, case, budgets)
    _write(output / f"compress_{name}.csv", rows)
    report(output, list(CASES))


if __name__ == "__main__":
    sys.exit(run_command(main, None, "compress"))
