"""Budgets solved by another search's scores: how near the base beside a search of its own, and at what cost.

    python benchmarks/known_scores.py --data-dir DIR --base fashion_vit

The unlabelled images of ``benchmarks/compress.py`` are cut in halves. A search on the first half leaves its scores; the
second half is fitted to by these, with one real score for each budget and with twelve, and by a search of its own.
Divergences are on the second half's held-out images, accuracies on test images. Writes
``results/known_scores_BASE.md``. Five minutes of a core for Fashion-MNIST's models.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import datetime
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

from benchmarks.compress import CASES, RESULTS, Case, right
from cp_vision.search import compress
from cp_vision.search.fit.accuracy import evaluated
from cp_vision.shared.command_line import run_command

BUDGETS = ("0.6x", "0.4x", "0.3x")
HEAD = ("form", "budget", "of base", "KL", "test top-1, %", "s of a core, all budgets")


def rows_of(case: Case, budgets: Sequence[str], **options: Any) -> list[tuple[str, ...]]:
    """A row for each form and budget.

    Args:
        case: the base and its images.
        budgets: the budgets.
        **options: of :func:`cp_vision.search.compress`.
    """
    half = len(case.unlabelled) // 2
    first, other = case.unlabelled[:half], case.unlabelled[half:]
    scores = compress(case.model, first, list(budgets), counterparts=False, **options).scores
    forms: dict[str, dict[str, Any]] = {
        "scores of other images, 1 try": {"scores": scores, "tries": 1},
        "scores of other images": {"scores": scores},
        "a search of its own": {},
    }
    rows = []
    for form, own in forms.items():
        begin = time.process_time()
        found = compress(case.model, other, list(budgets), counterparts=False, **{**options, **own})
        seconds = time.process_time() - begin
        for point in found.points:
            share = f"{point.best.macs / found.base_macs:.3f}"
            accuracy = evaluated(partial(right, case), point.model)
            figures = (share, f"{point.best.score:.2g}", str(accuracy), f"{seconds:.0f}")
            rows.append((form, point.budget, *figures))
            print(*rows[-1], flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure a base, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="where trained weights are kept")
    parser.add_argument("--base", choices=CASES, required=True)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    case = CASES[arguments.base](arguments.data_dir)
    rows = rows_of(case, BUDGETS)
    date = f"{datetime.datetime.now(datetime.UTC):%d %B %Y}"
    lines = [
        f"# {arguments.base} by the scores of another search",
        "",
        f"`python benchmarks/known_scores.py --data-dir DIR --base {arguments.base}`, {date}, torch "
        f"{torch.__version__}, timm {timm.__version__}, {torch.get_num_threads()} threads beside other work; "
        f"{len(case.unlabelled) // 2} images each, {len(case.test)} test images.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---|---|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    (arguments.output / f"known_scores_{arguments.base}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main, None, "known_scores"))
