"""Whether context pools make up for layers: pooled models with a third fewer layers beside plain ones, from scratch.

    python benchmarks/fewer_layers.py --data-dir DIR

All 60,000 images of Fashion-MNIST, one recipe for all models of a family, several seeds; besides pools of each mode,
their ablations, and rivals in their place. "twice as long" shows whether they had stopped improving.

Appends a line to ``fewer_layers.csv`` in ``--output`` after each training, those of a seed before those of the next,
and goes on from what is there; several processes, each told its ``--families``, can share the work. ``--report``
trains nothing and writes ``fewer_layers.md`` and pictures from the lines that there are. About ten minutes of a core a
training.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import csv
import datetime
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.fashion_mnist import InMemoryLoader, accuracy, fill, open_split
from benchmarks.fewer_layers_cases import FAMILIES, SEEDS, build
from benchmarks.fewer_layers_learned import learned
from benchmarks.fewer_layers_report import write_report
from cp_vision.recipes import Trainer, load_recipe, single_process
from cp_vision.recipes.data.seeding import seed_all

COLUMNS = ("family", "variant", "seed", "accuracy", "curve", "learned", "seconds", "date", "torch")


def train(family: str, variant: str, seed: int, data_dir: Path) -> dict[str, Any]:
    """Train one model; its line of the table: test accuracies in percent after each epoch, the last one counts."""
    case = FAMILIES[family]
    recipe = load_recipe("fashion_mnist", [f"seed={seed}", *case.settings])
    if case.variants[variant].epochs > 1:
        longer = f"epochs={recipe.epochs * case.variants[variant].epochs}"
        recipe = load_recipe("fashion_mnist", [f"seed={seed}", *case.settings, longer])
    seed_all(seed)
    model: Any = build(case, case.variants[variant])
    loader = InMemoryLoader(*open_split(data_dir, True), case.size, recipe)
    trainer = Trainer(model, recipe, loader, single_process())
    test, curve, begin = open_split(data_dir, False), [], time.process_time()
    for _ in range(trainer.epochs):
        trainer.train_epoch()
        curve.append(accuracy(trainer.model, *test, case.size))
        print(
            f"{family}, {variant}, seed {seed}: epoch {len(curve)} of {trainer.epochs}, {curve[-1]:.2f} %", flush=True
        )
    return {
        "family": family,
        "variant": variant,
        "seed": seed,
        "accuracy": f"{curve[-1]:.2f}",
        "curve": " ".join(f"{accuracy:.2f}" for accuracy in curve),
        "learned": learned(trainer.model, test[0], case),
        "seconds": f"{time.process_time() - begin:.0f}",
        "date": f"{datetime.date.today()}",
        "torch": torch.__version__,
    }


def read(table: Path) -> list[dict[str, str]]:
    """The lines that there are."""
    if not table.exists():
        return []
    with table.open() as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Train what is missing, or write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--variants", nargs="+", help="these alone; default all")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--report", action="store_true", help="train nothing, write the report")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    table = arguments.output / "fewer_layers.csv"
    if arguments.report:
        write_report(read(table), arguments.output)
        return
    torch.set_num_threads(1)
    fill(arguments.data_dir)
    for seed in range(arguments.seeds):
        for family in arguments.families:
            for variant in arguments.variants or FAMILIES[family].variants:
                done = {(row["family"], row["variant"], row["seed"]) for row in read(table)}
                enough = seed >= FAMILIES[family].variants[variant].most
                if enough or (family, variant, str(seed)) in done:
                    continue
                row = train(family, variant, seed, arguments.data_dir)
                new = not table.exists()
                with table.open("a", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    if new:
                        writer.writeheader()
                    writer.writerow(row)


if __name__ == "__main__":
    main()
