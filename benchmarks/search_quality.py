"""How good the samplers are: each runs a search many times against a table of all candidates.

    python benchmarks/search_quality.py

Reads ``results/search_table.csv`` (made by ``python benchmarks/search_table.py``) and writes ``search_quality.md``. A
run goes through everything that a search does but the training. Hypervolume: the area between the front and the point
of the budget's cost and the lowest accuracy within it, as a share of that of the front of all candidates within it.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import csv
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import optuna

from benchmarks.search_table import context
from cp_vision.search.config.schema import SAMPLERS
from cp_vision.search.context import SearchContext
from cp_vision.search.samplers.queue import TrialQueue
from cp_vision.search.samplers.registry import make_sampler
from cp_vision.search.selection import leaders
from cp_vision.search.study.trials import TrialStore
from cp_vision.search.study.workers import Worker

GOAL = 0.95


def main() -> None:
    """Run every sampler, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--most", type=int, default=100, help="evaluations of a run at most")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=[s for s in SAMPLERS if s != "gp"])
    parser.add_argument("--objective", choices=("pareto", "single"), default="pareto")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with (arguments.output / "search_table.csv").open() as file:
        table = {tuple(row["choice"].split()): float(row["accuracy"]) for row in csv.DictReader(file)}
    with tempfile.TemporaryDirectory() as folder:
        search = context(folder)
        names = search.space.names
        within = []
        for values, accuracy in table.items():
            choice = dict(zip(names, values, strict=True))
            if search.space.excess(choice) <= 0:
                within.append((search.space.macs(choice), accuracy))
        corner = search.space.limits[0].most, min(accuracy for _, accuracy in within)
        whole, best = area(within, corner), max(accuracy for _, accuracy in within)
        lines = [
            f"Made by `python benchmarks/search_quality.py`, Optuna {optuna.__version__}: {arguments.runs} runs of at "
            f"most {arguments.most} evaluations; {len(table)} candidates, {len(within)} within the budget, the best "
            f"{best:.2f} % right.",
            "",
            f"| sampler | evaluations to {GOAL:.0%} of the hypervolume, median | beside random | share of runs that "
            "got there | points below the best after as many as random needs, mean |",
            "|---|---|---|---|---|",
        ]
        found: dict[str, list[tuple[int | None, list[float]]]] = {}
        for sampler in ["random", *(s for s in arguments.samplers if s != "random")]:
            objective, most = arguments.objective, arguments.most
            found[sampler] = [
                run(search, table, sampler, objective, seed, most, lambda points: area(points, corner) / whole)
                for seed in range(arguments.runs)
            ]
            needed = [arguments.most if n is None else n for n, _ in found[sampler]]
            random_needs = statistics.median(arguments.most if n is None else n for n, _ in found["random"])
            gaps = [best - curve[min(int(random_needs), len(curve)) - 1] for _, curve in found[sampler]]
            reached = sum(n is not None for n, _ in found[sampler]) / arguments.runs
            median = statistics.median(needed)
            lines.append(
                f"| {sampler} | {median:g} | {median / random_needs:.2f} x | {reached:.0%} | "
                f"{statistics.mean(gaps):.2f} |"
            )
            print(lines[-1], flush=True)
    (arguments.output / "search_quality.md").write_text("\n".join(lines) + "\n")


def run(
    search: SearchContext,
    table: dict[tuple[str, ...], float],
    name: str,
    objective: str,
    seed: int,
    most: int,
    share: Callable[[list[tuple[int, float]]], float],
) -> tuple[int | None, list[float]]:
    """One search: after how many evaluations it had the goal's share of the hypervolume, and its best after each."""
    storage = optuna.storages.InMemoryStorage()
    sampler = make_sampler(name, search.space, seed, objective)
    study = optuna.create_study(storage=storage, direction="maximize", sampler=sampler)
    with Worker(study, search.output) as worker:
        record = TrialStore(study, storage, search.space, worker)
        queue = TrialQueue(record, most)
        needed, curve, points = None, [], []
        while (proposal := queue.next()) is not None and len(curve) < most:
            lease = record.claim(proposal)
            if lease is None:
                raise RuntimeError(f"{proposal} was proposed before")
            accuracy = table[tuple(lease.choice[name] for name in search.space.names)]
            record.finish(lease, "complete", accuracy=accuracy)
            if search.space.excess(lease.choice) <= 0:
                points.append((search.space.macs(lease.choice), accuracy))
            winner = leaders(record.candidates()).best
            curve.append(0.0 if winner is None or winner.accuracy is None else winner.accuracy)
            if needed is None and share(points) >= GOAL:
                needed = len(curve)
    return needed, curve


def area(points: list[tuple[int, float]], corner: tuple[float, float]) -> float:
    """Area that the points cover between them and a corner of the most cost and the least accuracy."""
    total, best = 0.0, corner[1]
    edges = sorted(points)
    for number, (cost, accuracy) in enumerate(edges):
        best = max(best, accuracy)
        until = min(edges[number + 1][0] if number + 1 < len(edges) else corner[0], corner[0])
        total += max(0.0, until - min(cost, corner[0])) * (best - corner[1])
    return total


if __name__ == "__main__":
    main()
