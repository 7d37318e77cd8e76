"""The report of ``search_quality.py``: means over the runs, with their standard errors."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import optuna

__all__ = ["EVALUATIONS", "write_report"]

EVALUATIONS = (15, 30, 60)


def write_report(path: Path) -> None:
    """Write the report beside the CSV, under the same name.

    Args:
        path: the CSV.
    """
    groups: dict[tuple[str, str, float], dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    with path.open() as file:
        for row in csv.DictReader(file):
            groups[row["budget"], row["problem"], float(row["noise"])][row["sampler"]].append(row)
    lines = [
        f"Made by `python benchmarks/search_quality.py`, Optuna {optuna.__version__}, objective `single`.",
        "",
        "Regret: points of true accuracy below the best within the budget, after so many evaluations, the base and "
        "what only drops among them; mean ± standard error over the runs, each with a problem and a sampler of its own "
        "seed. Near: share of the proposals among the first 30 evaluations above 0.9 of the budget. The problems: "
        "[search_problems.py](../search_problems.py); each run's figures: [search_quality.csv](search_quality.csv).",
        "",
        "The figures are of seeds from 0 on, the settings of `surrogate` were chosen on seeds from 1000 on. In digits "
        "the best candidate lies 1.4 points above the second, by a single training of each: no sampler can foresee "
        "that, so regret below 1.4 there says how often that one was met.",
    ]
    for (budget, problem, noise), samplers in groups.items():
        lines += [
            "",
            f"### {problem}, budget {budget}, noise {noise:g}",
            "",
            "| sampler | runs | " + " | ".join(f"regret, {n}" for n in EVALUATIONS) + " | of random's at 30 | near | "
            "CPU s a proposal |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for sampler, rows in sorted(samplers.items(), key=lambda item: mean(item[1], "regret_30")[0]):
            regrets = [describe(*mean(rows, f"regret_{n}")) for n in EVALUATIONS]
            share = "-"
            if "random" in samplers:
                # Of the same runs.
                own = {row["run"] for row in rows}
                random = [row for row in samplers["random"] if row["run"] in own]
                share = f"{mean(rows, 'regret_30')[0] / mean(random, 'regret_30')[0]:.2f} x" if random else "-"
            near, seconds = mean(rows, "near_30")[0], mean(rows, "seconds")[0]
            lines.append(f"| {sampler} | {len(rows)} | {' | '.join(regrets)} | {share} | {near:.0%} | {seconds:.2f} |")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def mean(rows: list[dict[str, str]], column: str) -> tuple[float, float]:
    """Mean of a column and its standard error; not-a-number where there are no figures."""
    values = np.array([float(row[column]) for row in rows if row[column]])
    if not len(values):
        return float("nan"), float("nan")
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def describe(value: float, error: float) -> str:
    """A mean with its standard error."""
    return "-" if np.isnan(value) else f"{value:.2f} ± {error:.2f}"
