"""How well the untrained score of a candidate orders accuracies after distillation.

    python benchmarks/rank_agreement.py --data-dir DIR

Of the ViT that was trained on Fashion-MNIST: candidates within 5 % of one another in MACs are drawn at random, scored
by their divergence from the base with nothing trained, then distilled from the base with two seeds (orders of the
images) and evaluated on 10,000 test images. Beside the untrained score, what a search by training asks: each is also
trained on its own, from random weights, by the base's recipe in a quarter of its epochs. Writes
``results/rank_agreement.{md,csv}``: Kendall's tau with the accuracy after distillation. Half an hour of a core.
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
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau

from benchmarks.choice import random_candidate
from benchmarks.fashion_mnist import accuracy, fill, open_split
from benchmarks.fashion_models import MODELS, train_on_fashion, trained_on_fashion
from cp_vision import drop_blocks, replace_blocks
from cp_vision.search.fit.build import build
from cp_vision.search.fit.distil import distil
from cp_vision.search.fit.images import Images
from cp_vision.search.fit.kinds import DEFAULT_KINDS, DROP, kinds_of
from cp_vision.search.fit.library import Library
from cp_vision.search.fit.option import Candidate, describe, saved_by
from cp_vision.search.fit.places import find_spots
from cp_vision.search.fit.workbench import Workbench
from cp_vision.shared.command_line import run_command

RESULTS = Path(__file__).parent / "results"
_BASE = "fashion_vit"
_BUDGET, _WITHIN, _TRAINING, _BATCH = 0.4, 0.05, 3072, 64
_SEEDS = (0, 1)


def measure(data_dir: Path, count: int) -> list[list[Any]]:
    """Scores and accuracies: MACs as a share, divergence, accuracy in percent with each seed, what was changed."""
    model = trained_on_fashion(_BASE, data_dir)
    training, (test, labels) = open_split(data_dir, True)[0], open_split(data_dir, False)
    images = Images(training[:512], model, 512)
    bench = Workbench(model, images)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        library = Library(bench, find_spots(bench.model, 3), kinds_of(DEFAULT_KINDS), Path(scratch))
        base, draw = library.base_costs["macs"], random.Random(0)
        while len(rows) < count:
            candidate = random_candidate(library.options, len(bench.blocks), round((1 - _BUDGET) * base), draw)
            if candidate is None or not _BUDGET - _WITHIN < 1 - saved_by(candidate, "macs") / base <= _BUDGET:
                continue
            built = build(library, candidate)
            accuracies = []
            for seed in _SEEDS:
                order = torch.randperm(_TRAINING, generator=torch.Generator().manual_seed(seed))
                # Those that scores are of are left out.
                distilled, *_ = distil(bench, built, 1, training[512 + order].split(_BATCH), Path(scratch, "distilled"))
                accuracies.append(accuracy(distilled, test, labels, MODELS[_BASE].size))
            share = 1 - saved_by(candidate, "macs") / base
            own = train_alone(candidate, data_dir)
            rows.append([share, bench.score_model(built), *accuracies, own, describe(candidate)])
            print(*(f"{v:.4g}" if isinstance(v, float) else v for v in rows[-1]), sep="  ", flush=True)
    return rows


def train_alone(candidate: Candidate, data_dir: Path) -> float:
    """Accuracy in percent of a candidate that begins with random weights."""
    torch.manual_seed(0)
    model = MODELS[_BASE].build()
    drop_blocks(model, [path for option in candidate if option.kind == DROP for path in option.blocks])
    replace_blocks(model, {option.place: option.options for option in candidate if option.kind != DROP})
    train_on_fashion(_BASE, model, data_dir, share=0.25)
    return accuracy(model, *open_split(data_dir, False), MODELS[_BASE].size)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24, help="candidates")
    arguments = parser.parse_args(argv)
    fill(arguments.data_dir)
    rows = measure(arguments.data_dir, arguments.count)
    with (RESULTS / "rank_agreement.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["macs", "kl", *(f"seed_{seed}" for seed in _SEEDS), "own", "made"])
        writer.writerows([f"{v:.5g}" if isinstance(v, float) else v for v in row] for row in rows)
    shares, scores, *seeds, own, _ = (list(column) for column in zip(*rows, strict=True))
    means = [sum(pair) / len(pair) for pair in zip(*seeds, strict=True)]
    pairs = (
        ("untrained divergence (lower is better)", [-value for value in scores], means),
        ("MACs", shares, means),
        ("accuracy of own training, a quarter of the base's", own, means),
        ("accuracy of the other seed's distillation", seeds[0], seeds[1]),
    )
    lines = [
        f"# Does the untrained score order what distillation gives? ({datetime.datetime.now(datetime.UTC):%d %B %Y})\n",
        f"`python benchmarks/rank_agreement.py --data-dir DIR`: {len(rows)} random candidates of the ViT trained on "
        f"Fashion-MNIST between {min(shares):.3f}x and {max(shares):.3f}x, one epoch over {_TRAINING} images, "
        f"{min(means):.2f} to {max(means):.2f} % of 10,000 test images after it.\n",
        "| by | Kendall's tau with the accuracy after distillation | p |",
        "|---|---|---|",
    ]
    for name, one, other in pairs:
        found = kendalltau(one, other)
        lines.append(f"| {name} | {found.statistic:.2f} | {found.pvalue:.2g} |")
    (RESULTS / "rank_agreement.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(run_command(main, None, "rank_agreement"))
