"""What a search takes beside its trainings, and how it speeds up with workers: scorers of a fixed cost, real searches.

    python benchmarks/search_overhead.py

Writes ``search_overhead.md`` to ``--output``. Overhead: wall time from the first to the last trial, less the fixed cost
of all, for a trial. Speed-up: trials in a time, two workers against one, in one run. Proposals: candidates for a
ResNet-50 that keep a budget, by processor time.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[0] = ROOT

import argparse
import datetime
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path

import optuna

from cp_vision.search import SearchConfig
from cp_vision.search.context import SearchContext
from cp_vision.search.samplers.registry import make_sampler
from cp_vision.search.space.repair import BudgetRepair
from cp_vision.search.study.trials import distributions

RUNNER = """
import json, sys, time
from cp_vision.search import Search, SearchConfig
from cp_vision.search.evaluators.base import Score
class Fixed:
    def __init__(self, seconds): self.seconds = seconds
    def __call__(self, architecture, img_size, on_epoch):
        time.sleep(self.seconds)
        return Score(50.0 + len(architecture.pools) - len(architecture.drops), 1)
if __name__ == "__main__":
    Search(SearchConfig(**json.loads(sys.argv[2]))).run(evaluator=Fixed(float(sys.argv[1])))
"""


def search(folder: Path, processes: int, trials: int, seconds: float, **config: object) -> float:
    """Seconds from the first trial's start to the last one's end."""
    values = {"base": "test_vit2", "output": str(folder), "trials": trials, "early_stop": "none", **config}
    command = [sys.executable, "-c", RUNNER, str(seconds), json.dumps(values)]
    running = [subprocess.Popen(command, cwd=ROOT) for _ in range(processes)]  # noqa: S603
    if any(process.wait() for process in running):
        raise RuntimeError(f"a search failed: {values}")
    study = optuna.load_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="cp-search")
    # The base comes alone, so the time begins with the trial after it.
    trials_done = [t for t in study.trials if t.datetime_complete and t.number > 0]
    begin = min(t.datetime_start for t in trials_done if t.datetime_start)
    return (max(t.datetime_complete for t in trials_done if t.datetime_complete) - begin).total_seconds() / len(
        trials_done
    )


def proposals(count: int) -> list[str]:
    """Rows of a table: what proposals within a budget take."""
    space = SearchContext(SearchConfig(base="resnet50", budget="0.7x", output="unused")).space
    repair, rng = BudgetRepair(space), random.Random(0)
    begin = time.process_time()
    drawn = [repair.draw(rng) for _ in range(count)]
    drawing = time.process_time() - begin
    choices = [choice for choice in drawn if choice is not None]
    begin = time.process_time()
    over = sum(space.excess(choice) > 0 for choice in choices)
    checking = time.process_time() - begin
    rows = [
        f"| drawn at random and repaired until the budget is kept | {drawing / count * 1e6:.0f} µs | {drawing:.2f} s: "
        f"{'reached' if drawing < 5 else 'not reached'} |",
        f"| checked against the budget ({over} over it) | {checking / count * 1e6:.1f} µs | {checking:.2f} s |",
    ]
    for sampler in ("surrogate", "random", "tpe", "nsgaii"):
        study, number = optuna.create_study(direction="maximize", sampler=make_sampler(sampler, space, 0)), 200
        begin = time.process_time()
        for i in range(number):
            study.tell(study.ask(distributions(space.choices())), 50.0 + i % 7)
        each = (time.process_time() - begin) / number
        rows.append(f"| proposed by {sampler}, the first {number} | {each * 1e6:.0f} µs | |")
    return rows


def main() -> None:
    """Run the searches, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    ray = {"executor": "ray", "cpus": 1}
    cases = {
        "in process": (1, 1.0, {}, 0.3),
        "Ray, one worker": (1, 1.0, {**ray, "parallel": 1}, 0.5),
        "two processes": (2, 1.0, {}, None),
        # Longer than a worker takes to start, else Tune gives its candidate to the first one and ends it.
        "Ray, two workers": (1, 6.0, {**ray, "parallel": 2}, None),
    }
    lines = [
        f"Made by `python benchmarks/search_overhead.py` on {datetime.date.today():%d %B %Y}, Optuna "
        f"{optuna.__version__}: {arguments.trials} trials of a fixed cost, no training.",
        "",
        "| | cost of a trial, s | seconds a trial | overhead of a trial, s | trials in the time of one | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for name, (processes, cost, config, limit) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            each = search(Path(folder) / "x", processes, arguments.trials, cost, **config)
        overhead, speed = each - cost, cost / each
        if limit is not None:
            reached, wanted = overhead <= limit, f"at most {limit} s overhead"
        else:
            reached, wanted = speed >= 1.6, "at least 1.6 trials"
        shown = f"{overhead:.2f}" if limit is not None else ""
        lines.append(
            f"| {name} | {cost:g} | {each:.2f} | {shown} | {speed:.2f} | {wanted}: "
            f"{'reached' if reached else 'not reached'} |"
        )
        print(lines[-1], flush=True)
    lines += ["", "| proposals for a ResNet-50 | each | 10,000 of them; wanted: in 5 s |", "|---|---|---|"]
    lines += proposals(10_000)
    print("\n".join(lines[-9:]))
    (arguments.output / "search_overhead.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
