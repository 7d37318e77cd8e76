"""How well scores with shared weights agree with trainings of each candidate alone, and at what cost.

    python benchmarks/supernet.py --data-dir DIR

A small space over Fashion-MNIST: a vision transformer of six blocks, each kept, pooled after or left out. Candidates
drawn from it are trained alone, by the recipe, and scored with shared weights that are trained once. All of it is done
with two seeds, which shows how well two trainings of the same candidate agree with each other.

``--data-dir`` is the folder of ``cp-train fashion_mnist``; where it is empty, it is filled from Debian's package
dataset-fashion-mnist if that is installed, or by a download. Writes ``supernet.csv`` to ``--output``, a line as each
figure comes, and ``supernet.md``; stopped and started again, it goes on. About 45 minutes of one core.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import csv
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.fashion_mnist import fill
from benchmarks.supernet_report import describe
from cp_vision import Architecture
from cp_vision.search import SearchConfig
from cp_vision.search.context import SearchContext
from cp_vision.search.evaluators.checkpoints import keep_weights
from cp_vision.search.evaluators.supernet.setup import supernet_evaluator
from cp_vision.search.evaluators.train import TrainEvaluator
from cp_vision.search.samplers.queue import starting_points
from cp_vision.search.space.repair import BudgetRepair

IMAGES, HELD_OUT = 12_000, 8_000
SEEDS = (0, 1)
COLUMNS = ("what", "seed", "pools", "drops", "accuracy", "seconds")
CONFIG = {
    "base": "test_vit",
    "recipe": "fashion_mnist",
    "budget": "1x",
    "evaluator": "supernet",
    "supernet_epochs": 4,
    # Narrow, so that every block counts: with 64 channels three blocks are as good as six.
    "model_kwargs": {"patch_size": 7, "embed_dim": 24, "num_heads": 1, "mlp_ratio": 1},
    "pool_options": {"support_range": 0.25},
    "overrides": ("epochs=5", "batch_size=64", "lr=0.004", "no_aug=true", "workers=0"),
}


def context(data_dir: Path, output: str, seed: int) -> SearchContext:
    """The space, and what trains it: on some of the images, so that every candidate can be trained."""
    found = SearchContext(SearchConfig(**CONFIG, data_dir=str(data_dir), output=output, seed=seed))  # type: ignore[arg-type]
    found.train_set, found.held_out = found.train_set.part(range(IMAGES)), found.held_out.part(range(HELD_OUT))
    return found


def candidates(search: SearchContext, count: int) -> list[Architecture]:
    """The base, some that only drop, and others within the budget at random."""
    space, rng, repair = search.space, random.Random(0), BudgetRepair(search.space)
    found = [space.architecture(choice) for choice in starting_points(space)]
    while len(found) < count:
        choice = repair.draw(rng)
        if choice is not None and space.architecture(choice) not in found:
            found.append(space.architecture(choice))
    return found


class Table:
    """Figures that are kept as they come.

    Args:
        path: a CSV file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, ...], tuple[float, float]] = {}
        if path.exists():
            with path.open() as file:
                for row in csv.DictReader(file):
                    key = tuple(row[name] for name in COLUMNS[:4])
                    self.rows[key] = float(row["accuracy"]), float(row["seconds"])

    def figure(
        self, what: str, seed: int, architecture: Architecture, measure: Callable[[], float]
    ) -> tuple[float, float]:
        """Accuracy in percent and seconds of one core; measured where the table lacks it."""
        key = (what, str(seed), " ".join(architecture.pools), " ".join(architecture.drops))
        if key not in self.rows:
            began = time.process_time()
            accuracy = measure()
            self.rows[key] = accuracy, time.process_time() - began
            new = not self.path.exists()
            with self.path.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if new:
                    writer.writerow(COLUMNS)
                writer.writerow([*key, f"{accuracy:.4f}", f"{self.rows[key][1]:.2f}"])
            print(*key, f"{accuracy:.2f} %, {self.rows[key][1]:.1f} s", flush=True)
        return self.rows[key]


def main() -> None:
    """Train, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fill(arguments.data_dir)
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = Table(arguments.output / "supernet.csv")
    alone: dict[int, list[tuple[float, float]]] = {}
    shared: dict[int, list[tuple[float, float]]] = {}
    training: dict[int, float] = {}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            search = context(arguments.data_dir, folder, seed)
            tried = candidates(search, arguments.candidates)
            alone[seed] = [table.figure("alone", seed, one, partial(train, search, one)) for one in tried]
            training[seed], shared[seed] = score_shared(search, table, seed, tried)
    report = describe(search, f"--candidates {arguments.candidates}", tried, alone, shared, training)
    print(report)
    (arguments.output / "supernet.md").write_text(report)


def train(search: SearchContext, architecture: Architecture) -> float:
    """Accuracy of a candidate that is trained alone."""
    accuracy = TrainEvaluator.of(search)(architecture, None, lambda epoch, epochs, loss, score: None).accuracy
    keep_weights(search.output, ())
    return accuracy


def score_shared(
    search: SearchContext, table: Table, seed: int, tried: list[Architecture]
) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of training the shared weights, and what each candidate scores with them."""
    evaluator = supernet_evaluator(search)

    def score(architecture: Architecture) -> float:
        return evaluator(architecture, None, lambda epoch, epochs, loss, score: None).accuracy

    def train_all() -> float:
        evaluator.prepare()
        return 0.0

    _, seconds = table.figure("training of shared weights", seed, evaluator.whole, train_all)
    return seconds, [table.figure("shared", seed, one, partial(score, one)) for one in tried]


if __name__ == "__main__":
    main()
