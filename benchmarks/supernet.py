"""How well scores with shared weights agree with trainings of each candidate alone, and at what cost.

    python benchmarks/supernet.py --data-dir DIR

A small space over Fashion-MNIST: a vision transformer of six blocks, each kept, pooled after or left out. Candidates
drawn from it are trained alone, by the recipe, and scored with shared weights that are trained once. Some are trained
alone with another seed too, which shows how well two such trainings agree with each other.

``--data-dir`` is the folder of ``cp-train fashion_mnist``; where it is empty, it is filled from Debian's package
dataset-fashion-mnist if that is installed, or by a download. Writes ``supernet.csv`` to ``--output``, a line as each
figure comes, and ``supernet.md``; stopped and started again, it goes on. About 45 minutes of one core.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import gzip
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import timm
import torch

from cp_vision import Architecture
from cp_vision.search import SearchConfig
from cp_vision.search.mending import Mender
from cp_vision.search.setup import Setup
from cp_vision.search.strategy import starting_points
from cp_vision.search.supernet import kendall_tau
from cp_vision.search.supernet_setup import supernet_evaluator

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGES, HELD_OUT = 12_000, 4_000
COLUMNS = ("what", "seed", "pools", "drops", "macs", "accuracy", "seconds")
CONFIG = {
    "base": "test_vit",
    "recipe": "fashion_mnist",
    "budget": "1x",
    "evaluator": "supernet",
    "supernet_epochs": 3,
    "model_kwargs": {"patch_size": 7},
    "pool_options": {"support_range": 0.25},
    "overrides": ("epochs=5", "batch_size=64", "lr=0.003", "no_aug=true", "workers=0"),
}


def setup(data_dir: Path, output: str, seed: int) -> Setup:
    """The space, and what trains it: on some of the images, so that every candidate can be trained."""
    found = Setup(SearchConfig(**CONFIG, data_dir=str(data_dir), output=output, seed=seed))  # type: ignore[arg-type]
    trainer = found.trainer
    trainer.train_set, trainer.held_out = trainer.train_set.part(range(IMAGES)), trainer.held_out.part(range(HELD_OUT))
    return found


def fill(data_dir: Path) -> None:
    """Unpack the files of Debian's package where they are, so that nothing is downloaded."""
    raw = data_dir / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for packed in DEBIAN.glob("*.gz"):
        if not (raw / packed.stem).exists():
            with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
                shutil.copyfileobj(source, target)


def candidates(search: Setup, count: int) -> list[Architecture]:
    """The base, some that only drop, and others within the budget at random."""
    space, chance, mender = search.space, random.Random(0), Mender(search.space)
    found = [space.architecture(choice) for choice in starting_points(space)]
    while len(found) < count:
        choice = mender.draw(chance)
        if choice is not None and space.architecture(choice) not in found:
            found.append(space.architecture(choice))
    return found


class Table:
    """Figures that are kept as they come.

    Args:
        path: a CSV file.
        search: counts the MACs.
    """

    def __init__(self, path: Path, search: Setup) -> None:
        self.path, self.search = path, search
        self.rows: dict[tuple[str, ...], tuple[float, float]] = {}
        if path.exists():
            with path.open() as file:
                for row in csv.DictReader(file):
                    key = tuple(row[name] for name in COLUMNS[:4])
                    self.rows[key] = float(row["accuracy"] or 0), float(row["seconds"])

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
                choice = self.search.space.choice(architecture.pools, architecture.drops)
                macs = self.search.space.macs(choice)
                writer.writerow([*key, macs, f"{accuracy:.2f}", f"{self.rows[key][1]:.1f}"])
            print(*key, f"{accuracy:.2f} %, {self.rows[key][1]:.0f} s", flush=True)
        return self.rows[key]


def main() -> None:
    """Train, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--again", type=int, default=8, help="candidates that are trained with another seed too")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fill(arguments.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        search = setup(arguments.data_dir, folder, seed=0)
        table = Table(arguments.output / "supernet.csv", search)
        tried = candidates(search, arguments.candidates)
        alone = [table.figure("alone", 0, one, lambda one=one: train(search, one)) for one in tried]
        other = setup(arguments.data_dir, folder, seed=1)
        # Spread over the whole range, so that they stand for all.
        spread = [tried[i * len(tried) // arguments.again] for i in range(arguments.again)]
        again = [table.figure("alone", 1, one, lambda one=one: train(other, one)) for one in spread]
        shared = score_shared(search, table, tried)
    first = [table.rows["alone", "0", " ".join(one.pools), " ".join(one.drops)] for one in spread]
    report = describe(search, arguments, tried, shared, alone, list(zip(first, again, strict=True)))
    print(report)
    (arguments.output / "supernet.md").write_text(report)


def train(search: Setup, architecture: Architecture) -> float:
    """Accuracy of a candidate that is trained alone."""
    accuracy = search.trainer(architecture, None, lambda epoch, epochs, loss, score: None).accuracy
    search.trainer.keep(())
    return accuracy


def score_shared(search: Setup, table: Table, tried: list[Architecture]) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of training the shared weights, and what each candidate scores with them."""
    evaluator = supernet_evaluator(search)

    def train_all() -> float:
        evaluator.prepare()
        return 0.0

    _, seconds = table.figure("training of shared weights", 0, evaluator.whole, train_all)

    def score(architecture: Architecture) -> float:
        return evaluator(architecture, None, lambda epoch, epochs, loss, score: None).accuracy

    return seconds, [table.figure("shared", 0, one, lambda one=one: score(one)) for one in tried]


def describe(
    search: Setup,
    arguments: argparse.Namespace,
    tried: list[Architecture],
    shared: tuple[float, list[tuple[float, float]]],
    alone: list[tuple[float, float]],
    twice: list[tuple[tuple[float, float], tuple[float, float]]],
) -> str:
    """The report."""
    training, scores = shared
    scoring, trainings = sum(seconds for _, seconds in scores), sum(seconds for _, seconds in alone)
    pairs = [(score[0], own[0]) for score, own in zip(scores, alone, strict=True)]
    by_accuracy = sorted(range(len(tried)), key=lambda i: -alone[i][0])
    better = by_accuracy[: len(tried) // 2]
    finalists = sorted(range(len(tried)), key=lambda i: -scores[i][0])[: search.config.finalists]
    names, train_set = list(search.space.names), search.trainer.train_set
    lines = [
        f"Made by `python benchmarks/supernet.py --data-dir DIR --candidates {arguments.candidates} --again "
        f"{arguments.again}` on {datetime.date.today():%d %B %Y}: torch {torch.__version__}, timm {timm.__version__}, "
        f"one thread.",
        "",
        f"Fashion-MNIST, {len(train_set):,} images to train on, {HELD_OUT:,} to compare on; `{search.config.base}` "
        f"with {search.config.model_kwargs}, pools {search.config.pool_options}, recipe `{search.config.recipe}` with "
        f"{', '.join(search.config.overrides)}; {len(tried)} candidates within {search.config.budget_text} of the "
        "base's MACs, the base and those that only drop among them. Seconds are those of one core.",
        "",
        "| | |",
        "|---|---|",
        f"| Kendall's tau between both scores | {_tau(pairs)} |",
        f"| the same among the better half by their own trainings | {_tau([pairs[i] for i in better])} |",
        f"| between trainings of {len(twice)} of them with two seeds | "
        f"{_tau([(first[0], second[0]) for first, second in twice])} |",
        f"| the best by its own training | {alone[by_accuracy[0]][0]:.2f} % |",
        f"| the best of the {len(finalists)} with the highest scores, by its own training | "
        f"{max(alone[i][0] for i in finalists):.2f} % |",
        f"| seconds: shared weights and all scores | {training:.0f} + {scoring:.0f} |",
        f"| seconds: every candidate alone | {trainings:.0f} |",
        f"| share | {(training + scoring) / trainings:.3f} |",
        "",
        f"A row for each candidate, the best first: what became of {names[0]} to {names[-1]} (K kept, P kept and "
        "pooled after, - left out).",
        "",
        "| blocks | MACs | alone, % | shared weights, % | alone, s | shared weights, s |",
        "|---|---|---|---|---|---|",
    ]
    for i in by_accuracy:
        one = tried[i]
        blocks = "".join("P" if name in one.pools else "-" if name in one.drops else "K" for name in names)
        macs = search.space.macs(search.space.choice(one.pools, one.drops)) / search.space.base_macs
        lines.append(
            f"| {blocks} | {macs:.3f}x | {alone[i][0]:.2f} | {scores[i][0]:.2f} | {alone[i][1]:.0f} | "
            f"{scores[i][1]:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _tau(pairs: list[tuple[float, float]]) -> str:
    tau = kendall_tau(pairs)
    return "none" if tau is None else f"{tau:.2f}"


if __name__ == "__main__":
    main()
