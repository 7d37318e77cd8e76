"""Every candidate of a small space, trained: what a search over it can find at best.

    python benchmarks/search_table.py

Writes ``search_table.csv`` to ``--output``, a line as each candidate comes, and goes on where it was stopped: the 242
candidates of a vision transformer of five blocks (each kept, pooled after, or left out), trained on scikit-learn's
digits by the bundled recipe at a third of its length. About 20 minutes of one core.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import csv
import itertools
import tempfile
from pathlib import Path

import torch

from cp_vision.search import SearchConfig
from cp_vision.search.context import SearchContext
from cp_vision.search.evaluators.checkpoints import keep_weights
from cp_vision.search.evaluators.train import TrainEvaluator

COLUMNS = ("choice", "macs", "accuracy")
CONFIG = {
    "base": "test_vit2",
    "budget": "0.8x",
    "model_kwargs": {"patch_size": 8, "init_values": 1.0, "depth": 5},
    "pool_options": {"support_range": 0.25},
    "overrides": ("epochs=3",),
}


def context(output: str) -> SearchContext:
    """The space that is looked at, with the recipe that trains it."""
    return SearchContext(SearchConfig(**CONFIG, output=output))  # type: ignore[arg-type]


def main() -> None:
    """Train what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = arguments.output / "search_table.csv"
    known = set()
    if path.exists():
        with path.open() as file:
            known = {row["choice"] for row in csv.DictReader(file)}
    with tempfile.TemporaryDirectory() as folder, path.open("a", newline="") as file:
        search = context(folder)
        train = TrainEvaluator.of(search)
        writer = csv.writer(file, lineterminator="\n")
        if not known:
            writer.writerow(COLUMNS)
        for values in itertools.product(*search.space.choices().values()):
            choice = dict(zip(search.space.names, values, strict=True))
            name = " ".join(values)
            if name in known or all(value == "drop" for value in values):
                continue
            score = train(search.space.architecture(choice), None, lambda epoch, epochs, loss, score: None)
            keep_weights(search.output, ())
            writer.writerow([name, search.space.macs(choice), repr(score.accuracy)])
            file.flush()
            print(f"{name}: {score.accuracy:.2f} %", flush=True)


if __name__ == "__main__":
    main()
