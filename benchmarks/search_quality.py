"""How good the samplers are on reference problems: how far below the best is what a search returns?

    python benchmarks/search_quality.py

The problems (``search_problems.py``), without noise and with scores that are off by 0.3 points, as one training's are.
Each run starts as every search does, with the base and what only drops, and then tries what the sampler proposes.

- Regret: points of true accuracy that the winner is below the best within the budget. Without noise the winner is the
  best so far; with noise the best four are scored three times more, as finalists are, and the best mean wins.
- Near the budget: the share of the proposals that cost more than 0.9 of it.

A line for each run in ``results/search_quality.csv``, as it comes: runs that are there aren't made again, so several
processes with ``--samplers`` or ``--problems`` of their own may work at once. Delete a sampler's lines when it has
changed. The report, ``search_quality.md``, is of all lines that are there. About 25 minutes of one core. Optuna's
``gp`` takes six seconds a proposal on the larger problems, so it is made only where it is named, in three runs that
stop at 30 evaluations: an hour more.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import csv
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.search_problems import PROBLEMS, Problem
from benchmarks.search_quality_report import EVALUATIONS, write_report
from cp_vision.search.samplers.queue import starting_points
from cp_vision.search.samplers.registry import make_sampler
from cp_vision.search.study.trials import distributions

SAMPLERS = ("random", "nsgaii", "tpe", "surrogate", "gp")
NOISES = (0.0, 0.3)
FINALISTS, SCORINGS, NEAR = 4, 3, 0.9
GP_RUNS = 3
COLUMNS = (
    "problem",
    "budget",
    "noise",
    "sampler",
    "run",
    *(f"{what}_{n}" for what in ("regret", "near") for n in EVALUATIONS),
    "seconds",
)


def main() -> None:
    """Make the runs that are missing, then the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--budget", default="0.7x")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS[:-1])
    parser.add_argument("--noises", nargs="+", type=float, default=NOISES, help="points")
    parser.add_argument("--first", type=int, default=0, help="number of the first run, which is its seed")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = arguments.output / "search_quality.csv"
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n")
    with path.open() as file:
        known = {tuple(row[name] for name in COLUMNS[:5]) for row in csv.DictReader(file)}
    # All samplers come equally far, whenever it is stopped.
    for run in range(arguments.first, arguments.first + arguments.runs):
        for sampler in arguments.samplers:
            if sampler == "gp" and run - arguments.first >= GP_RUNS:
                continue
            for problem in arguments.problems:
                for noise in arguments.noises:
                    key = (problem, arguments.budget, str(noise), sampler, str(run))
                    if key not in known:
                        found = search(PROBLEMS[problem](arguments.budget, run), sampler, noise, run)
                        with path.open("a") as file:
                            file.write(",".join([*key, *found]) + "\n")
    write_report(path)


def search(problem: Problem, sampler: str, noise: float, seed: int) -> list[str]:
    """One run.

    Args:
        problem: what is searched.
        sampler: proposes.
        noise: standard deviation of a score, in percent points.
        seed: of sampler and noise.

    Returns:
        The figures of its line, from ``regret_15`` on; empty where it stopped before.
    """
    space, rng = problem.space, np.random.default_rng(seed)
    most = EVALUATIONS[1] if sampler == "gp" else EVALUATIONS[-1]
    study = optuna.create_study(direction="maximize", sampler=make_sampler(sampler, space, seed, "single"))
    start = starting_points(space)
    for choice in start:
        study.enqueue_trial(choice)
    seconds = 0.0
    for _ in range(most):
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = study.ask(distributions(space.choices()))
        seconds += time.process_time() - began
        study.tell(trial, problem.accuracy(trial.params) + noise * rng.normal())
    tried: list[tuple[float, dict[str, Any]]] = [
        (trial.values[0], trial.params) for trial in study.get_trials(deepcopy=False)
    ]
    regrets, shares = [], []
    for count in EVALUATIONS:
        if count > most:
            regrets.append("")
            shares.append("")
            continue
        within = [(score, choice) for score, choice in tried[:count] if space.excess(choice) <= 0]
        finalists = sorted(within, key=lambda pair: -pair[0])[: FINALISTS if noise else 1]
        true = np.array([problem.accuracy(choice) for _, choice in finalists])
        winner = (true + noise * rng.normal(size=(SCORINGS, len(true))).mean(0)).argmax()
        costs = [space.cost(choice, space.measure) for _, choice in tried[len(start) : count]]
        regrets.append(f"{problem.optimum - true[winner]:.4f}")
        shares.append(f"{np.mean(np.array(costs) > NEAR * space.limits[0].most):.4f}")
    return [*regrets, *shares, f"{seconds / (most - len(start)):.3f}"]


if __name__ == "__main__":
    main()
