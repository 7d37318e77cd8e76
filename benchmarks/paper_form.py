"""Context pools where the paper has them, in small models trained from scratch, and what else could stand there.

    python benchmarks/paper_form.py --data-dir DIR

ViTs with patches cut out and a pool that replaces what each block gives to the next one's attention; ResNets with a
pool in place of each conventional pooling, the stem's max pool and the shortcuts' average pools. Beside them are plain
models, wider ones of the pools' MACs and deeper ones; a depthwise convolution in the pools' places; pools without
learned weights or without learned supports; and trainings for twice as long, which show what was still to be gained.

Appends a line to ``paper_form.csv`` in ``--output`` after each training, those of a seed before those of the next, and
goes on from what is there. ``--report`` trains nothing and writes ``paper_form.md`` and pictures from the lines that
there are. A training takes one or two minutes of a core. Solar cells need the package elpv-dataset.
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
from torch import Tensor

from benchmarks.elpv import elpv_images, elpv_labels, elpv_split
from benchmarks.fashion_mnist import InMemoryLoader, accuracy, fill, open_split
from benchmarks.paper_form_cases import FAMILIES, Family, build
from benchmarks.paper_form_learned import learned
from benchmarks.paper_form_report import write_report
from cp_vision.recipes import Trainer, load_recipe, single_process
from cp_vision.recipes.data.seeding import seed_all

COLUMNS = ("family", "form", "seed", "accuracy", "curve", "learned", "seconds", "date", "torch")
SEEDS = 5
_SCORED = 4  # times in a training


def open_images(family: Family, seed: int, data_dir: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images (N, 1, H, W), normalised, and their classes (N,): those to train on, which the seed draws, and to test.

    Of solar cells every seed has the same.
    """
    if family.data == "elpv":
        images, labels = elpv_images(family.size, [0.5] * 3, [0.25] * 3)[:, :1], elpv_labels()
        train, val, test = elpv_split()
        return (images[torch.cat([train, val])], labels[torch.cat([train, val])]), (images[test], labels[test])
    images, labels = open_split(data_dir, True)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[: family.train]
    return (images[chosen], labels[chosen]), open_split(data_dir, False)


def train(name: str, form: str, seed: int, data_dir: Path) -> dict[str, Any]:
    """Train one model; its line of the table: test accuracies in percent after each quarter, the last one counts."""
    family = FAMILIES[name]
    recipe = load_recipe("fashion_mnist", [f"seed={seed}", *family.settings])
    recipe = recipe.model_copy(update={"epochs": recipe.epochs * family.forms[form].epochs})
    seen, test = open_images(family, seed, data_dir)
    seed_all(seed)
    model: Any = build(family, family.forms[form])
    trainer = Trainer(model, recipe, InMemoryLoader(*seen, family.size, recipe), single_process())
    curve, begin = [], time.process_time()
    for epoch in range(1, trainer.epochs + 1):
        trainer.train_epoch()
        if epoch * _SCORED % trainer.epochs < _SCORED:
            curve.append(f"{accuracy(trainer.model, *test, family.size):.2f}")
    row = {
        **{"family": name, "form": form, "seed": seed, "accuracy": curve[-1], "curve": " ".join(curve)},
        "learned": learned(trainer.model, test[0], family.size, seed == 0 and family.data == "fashion"),
        "seconds": f"{time.process_time() - begin:.0f}",
        **{"date": f"{datetime.date.today()}", "torch": torch.__version__},
    }
    print(f"{name}, {form}, seed {seed}: {row['curve']} %, {row['seconds']} s of a core", flush=True)
    return row


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
    parser.add_argument("--forms", nargs="+", help="these alone; default all")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--report", action="store_true", help="train nothing, write the report")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    table = arguments.output / "paper_form.csv"
    torch.set_num_threads(1)
    fill(arguments.data_dir)
    if arguments.report:
        write_report(read(table), open_split(arguments.data_dir, False)[0], arguments.output)
        return
    for seed in range(arguments.seeds):
        for family in arguments.families:
            for form in arguments.forms or FAMILIES[family].forms:
                if form not in FAMILIES[family].forms:
                    continue
                if (family, form, str(seed)) in {(row["family"], row["form"], row["seed"]) for row in read(table)}:
                    continue
                row = train(family, form, seed, arguments.data_dir)
                new = not table.exists()
                with table.open("a", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    if new:
                        writer.writeheader()
                    writer.writerow(row)


if __name__ == "__main__":
    main()
