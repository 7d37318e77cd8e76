"""Images a second of what ``compress.py`` found, beside the MACs.

    python benchmarks/compress_speed.py --data-dir DIR --base fashion_vit

Builds every model of ``results/compress_BASE.csv`` again, with new weights, which time doesn't ask for, and measures it
beside its base at batches of 1 and 32, with as many threads as PyTorch takes by itself. Of Torch-Pruning's rows
(``pip install torch-pruning==1.6.1``) it prunes again. Writes ``results/compress_speed_BASE.csv``, and the tables of
``results/compress.md``; on an idle machine, a minute or two.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import copy
import csv
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.channel_pruning import pruned
from benchmarks.compress import CASES, RESULTS, Case, bench_of
from benchmarks.compress_report import report
from benchmarks.replacement_report import Row, read_csv
from cp_vision import count_macs, drop_blocks, replace_blocks
from cp_vision.search.fit.images import FitImages
from cp_vision.search.fit.kinds import DEFAULT_KINDS, DROP, kinds_of
from cp_vision.search.fit.offers import offered
from cp_vision.search.fit.option import Option
from cp_vision.search.fit.places import MAX_RUN, find_spots
from cp_vision.search.fit.throughput import Throughput
from cp_vision.search.fit.workbench import Workbench
from cp_vision.shared.command_line import run_command

BATCHES = (1, 32)
_MACS_WITHIN = 1e-4


class Speed(NamedTuple):
    """The speed of a model, or of the base, whose form is ``base``.

    Attributes:
        base: the base.
        budget: the budget; empty for the base.
        form: what the model may be made of, as in ``compress_BASE.csv``.
        macs: as a share of the base's.
        at_1: images a second, one at a time.
        at_32: the same in batches of 32.
        threads: that PyTorch computed with.
        date: of the run.
    """

    base: str
    budget: str
    form: str
    macs: float
    at_1: float
    at_32: float
    threads: int
    date: str


def measure(name: str, case: Case, rows: Sequence[Row]) -> list[Speed]:
    """Build and time what the rows are of; the base first."""
    bench = bench_of(case)
    base, macs = bench.model, count_macs(bench.model)
    options = {option.key: option for option in offered(base, find_spots(base, MAX_RUN), kinds_of(DEFAULT_KINDS))}
    speed = Throughput(base, torch.cat(bench.images.held_out), BATCHES)
    own = (torch.get_num_threads(), f"{datetime.date.today()}")
    found = [Speed(name, "", "base", 1, *speed.of_base.values(), *own)]
    # Forms of a budget that are one model are measured once.
    known: dict[str, tuple[float, dict[int, float]]] = {}
    for row in rows:
        if row["form"] == "base":
            continue
        if (key := f"{row['macs']} {row['made']}") not in known:
            model = _pruned(bench, row, macs) if row["form"].startswith("Torch-Pruning") else _made(base, row, options)
            known[key] = count_macs(model) / macs, speed.of(model)
        share, rates = known[key]
        if abs(share - float(row["macs"])) > _MACS_WITHIN:
            raise RuntimeError(f"{row['budget']}, {row['form']}: built again it has {share:.5f}x, not {row['macs']}x")
        found.append(Speed(name, row["budget"], row["form"], share, *rates.values(), *own))
        print(*found[-1], sep="  ", flush=True)
    return found


def _made(base: nn.Module, row: Row, options: dict[str, Option]) -> nn.Module:
    """A base with the changes of a row."""
    # Names of kinds have spaces; those of places don't.
    words = row["made"].split(" ")
    keys: list[str] = []
    for word in words:
        keys = [*keys, word.replace("=", "|", 1)] if "=" in word else [*keys[:-1], f"{keys[-1]} {word}"]
    model, chosen = copy.deepcopy(base), [options[key] for key in keys]
    replace_blocks(model, {option.place: option.options for option in chosen if option.kind != DROP})
    drop_blocks(model, [path for option in chosen if option.kind == DROP for path in option.blocks])
    return model.eval()


def _pruned(bench: Workbench, row: Row, macs: int) -> nn.Module:
    """What Torch-Pruning leaves of a base, as a row says."""
    images, limit = torch.cat(list(FitImages(bench.images))), int(float(row["budget"].rstrip("x")) * macs)
    inner = [False, True] if hasattr(bench.model, "conv_head") else [True]
    found = [model for own in inner for model in pruned(bench.model, images, limit, row["made"], own)]
    return min(found, key=lambda model: abs(count_macs(model) / macs - float(row["macs"])))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure a base's rows, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="where trained weights are kept")
    parser.add_argument("--base", choices=CASES, required=True)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    name, output = arguments.base, arguments.output
    found: Any = measure(name, CASES[name](arguments.data_dir), read_csv(RESULTS / f"compress_{name}.csv"))
    with (output / f"compress_speed_{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Speed._fields)
        writer.writerows([f"{value:.5g}" if isinstance(value, float) else value for value in line] for line in found)
    report(output, list(CASES))


if __name__ == "__main__":
    sys.exit(run_command(main, None, "compress_speed"))
