"""Whether what a search by fitted stand-ins says of its models holds: all of it is done again with fresh seeds.

    make demo OUTPUT=runs/one SEED=0
    make demo OUTPUT=runs/two SEED=1
    python benchmarks/trust_fit.py runs/one runs/two

The base is trained, stand-ins are fitted and chosen anew, for fresh seeds from 1000 on, two at a time. Writes
``results/trust_fit.md``. A claim (points over the base, what pools add, both image by image on the test split) holds
where the mean of the fresh ones lies within 1.96 standard errors of both; two searches agree where their 95 % intervals
overlap. A minute or two of a core for each seed of the demo.
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
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FIRST_SEED = 1000
_ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
CLAIMS = {"over_base": "points over the base", "pools_add": "what pools add"}


def main() -> None:
    """Search again, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", nargs="+", type=Path, help="output folders of searches that differ by their seed")
    parser.add_argument("--seeds", type=int, default=5, help="fresh seeds")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    told = {folder.name: read(folder) for folder in arguments.searches}
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        folders = [Path(scratch) / str(FIRST_SEED + i) for i in range(arguments.seeds)]
        list(pool.map(lambda folder: search_again(arguments.searches[0], folder), folders))
        fresh = [read(folder) for folder in folders]
    bases = [values["base_test_top1"]["value"] for values in (*told.values(), *fresh)]
    lines = [
        f"# Does what a search by fitted stand-ins says hold? ({datetime.datetime.now(datetime.UTC):%d %B %Y})\n",
        f"Made by `python benchmarks/trust_fit.py` after two `make demo`: {arguments.seeds} fresh seeds of the whole, "
        f"base trained anew ({min(bases):.2f} to {max(bases):.2f} % of {fresh[0]['test_images']} test images), "
        "differences in points with standard errors.\n",
        "| search | budget | claim | said | again | beyond both errors | cost by the budget |",
        "|---|---|---|---|---|---|---|",
        *rows(told, fresh),
    ]
    lines += agreement(told)
    (arguments.output / "trust_fit.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def read(folder: Path) -> dict[str, Any]:
    """The results of a finished search."""
    values: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return values


def search_again(like: Path, folder: Path) -> None:
    """The same search with the seed that the new folder is named by."""
    values = json.loads((like / "search.json").read_text())
    config = folder.parent / f"{folder.name}.json"
    config.write_text(json.dumps({**values, "seed": int(folder.name), "output": str(folder)}))
    command = [sys.executable, "-m", "cp_vision.search.cli.main", "--config", str(config), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_ONE_THREAD)  # noqa: S603


def rows(told: Mapping[str, Any], fresh: Sequence[Any]) -> Iterator[str]:
    """A row for each search, budget and claim."""
    for name, values in told.items():
        for i, point in enumerate(values["points"]):
            for claim, words in CLAIMS.items():
                again = [one["points"][i][claim]["value"] for one in fresh]
                mean, error = statistics.mean(again), statistics.stdev(again) / math.sqrt(len(again))
                said = point[claim]
                beyond = abs(said["value"] - mean) > 1.96 * math.hypot(said["error"], error)
                cost = point["costs"][point["measure"]] / point["limit"]
                first, then = f"{said['value']:+.2f} ± {said['error']:.2f}", f"{mean:+.2f} ± {error:.2f}"
                verdict = "yes" if beyond else "no"
                yield f"| {name} | {point['budget']} | {words} | {first} | {then} | {verdict} | {cost:.3f} |"


def agreement(told: Mapping[str, Any]) -> Iterator[str]:
    """Whether the searches' intervals overlap."""
    for claim, words in CLAIMS.items():
        for points in zip(*(values["points"] for values in told.values()), strict=True):
            said = [point[claim] for point in points]
            low = max(one["value"] - 1.96 * one["error"] for one in said)
            high = min(one["value"] + 1.96 * one["error"] for one in said)
            yield f"\n{words} at {points[0]['budget']}: intervals {'overlap' if low <= high else 'do not overlap'}."


if __name__ == "__main__":
    main()
