"""Whether what a search says of its winner holds: base, winner and pair are trained again with fresh seeds.

    cp-search test_vit2 ... --seed 0 --output runs/one
    cp-search test_vit2 ... --seed 1 --output runs/two
    python benchmarks/trust.py runs/one runs/two

Writes ``results/trust.md``. Fresh seeds are 1000 and those that follow. A claim holds where the difference of the fresh
means lies within the 95 % interval of the difference of both; two claims agree where their intervals overlap.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import datetime
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from cp_vision import Architecture
from cp_vision.search import Search
from cp_vision.search.config.files import load_config
from cp_vision.search.evaluators.train import TrainEvaluator
from cp_vision.search.uncertainty import difference, seed_spread

FIRST_SEED = 1000
CLAIMS = {"winner_over_base": ("winner", "base"), "what_pooling_buys": ("pooled", "unpooled_counterpart")}


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", nargs="+", type=Path, help="output folders of finished searches")
    parser.add_argument("--seeds", type=int, default=5, help="fresh seeds for each model")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    lines = [
        f"# Do the claims of a search hold? ({datetime.datetime.now(datetime.UTC):%d %B %Y})\n",
        f"Made by `python benchmarks/trust.py`: {arguments.seeds} fresh seeds for each model, validation split, "
        "differences in points with standard errors.\n",
        "| search | claim | said | again | beyond both errors | winner's cost by the budget |",
        "|---|---|---|---|---|---|",
    ]
    said: dict[str, list[tuple[float, float]]] = {claim: [] for claim in CLAIMS}
    for folder in arguments.searches:
        results = json.loads((folder / "results.json").read_text())
        fresh = trained_again(folder, results, arguments.seeds)
        spread = seed_spread(fresh.values())
        budget = results["budgets"][0]
        edge = results["winner"][{"macs": "macs", "params": "params", "latency": "latency_ms"}[budget["measure"]]]
        for claim, (one, other) in CLAIMS.items():
            told = results[claim] and results[claim]["validation"]
            if told is None or told["error"] is None:
                lines.append(f"| {folder.name} | {claim} | not told | | | |")
                continue
            again = difference(fresh[one], fresh[other], spread)
            error = math.hypot(told["error"], again.error or 0.0)
            beyond = abs(told["gain"] - again.gain) > error * float(student.ppf(0.975, 2 * arguments.seeds - 2))
            said[claim].append((told["gain"] - told["interval"], told["gain"] + told["interval"]))
            lines.append(
                f"| {folder.name} | {claim} | {told['gain']:+.2f} ± {told['error']:.2f} | {again.gain:+.2f} ± "
                f"{again.error or 0.0:.2f} | {'yes' if beyond else 'no'} | {edge / budget['most']:.2f} |"
            )
            print(lines[-1], flush=True)
    for claim, intervals in said.items():
        if len(intervals) > 1:
            overlap = max(low for low, _ in intervals) <= min(high for _, high in intervals)
            lines.append(f"\n{claim}: intervals of all searches {'overlap' if overlap else 'do not overlap'}.")
    (arguments.output / "trust.md").write_text("\n".join(lines) + "\n")


def trained_again(folder: Path, results: Mapping[str, Any], seeds: int) -> dict[str, dict[int, float]]:
    """Validation accuracies by fresh seed of base, winner and pair."""
    search = Search(load_config(folder))
    found: dict[str, dict[int, float]] = {}
    known: dict[int, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        trainer = TrainEvaluator.of(search, Path(scratch))
        for role in {role for roles in CLAIMS.values() for role in roles}:
            one = results[role]
            if one is None:
                continue
            if one["number"] not in known:
                choice = search.space.choice(one["pools"], one["drops"], **one["settings"])
                known[one["number"]] = {
                    seed: accuracy(trainer, search.space.architecture(choice), search.space.img_size(choice), seed)
                    for seed in range(FIRST_SEED, FIRST_SEED + seeds)
                }
            found[role] = known[one["number"]]
    return found


def accuracy(trainer: TrainEvaluator, architecture: Architecture, img_size: int | None, seed: int) -> float:
    """Validation accuracy after a training with a seed."""
    return trainer(architecture, img_size, lambda epoch, epochs, loss, score: None, seed).accuracy


if __name__ == "__main__":
    main()
