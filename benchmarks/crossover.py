"""From which size of map the linear backend overtakes the exact one, hence where ``backend="auto"`` changes over.

    python benchmarks/crossover.py

Writes ``crossover.md`` to ``--output``: medians of one process in which both take turns, batch 8, a whole gated
``ContextPool2d``, forward.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from pathlib import Path

import torch
from torch import nn

from benchmarks.measure import median_times
from benchmarks.pool_cost import inference
from benchmarks.pool_cost_cases import Place, make_input, make_method
from cp_vision.pooling.context_pool import uses_linear

SIDES = (7, 8, 10, 12, 14, 16, 20, 24)
CHANNELS = (384, 1024)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    lines = [
        f"Made by `python benchmarks/crossover.py`, {torch.get_num_threads()} threads, torch {torch.__version__}.",
        "",
        "| map | exact ms | linear ms | linear / exact | auto |",
        "|---|---|---|---|---|",
    ]
    for channels in CHANNELS:
        for side in SIDES:
            place = Place(f"{side}x{side}x{channels}", channels, side, side, 8, nn.Identity)
            x = make_input(place)
            functions = {}
            for backend in ("exact", "linear"):
                module = make_method(backend, place)
                assert module is not None, place  # noqa: S101 - none of these maps is large
                functions[backend] = inference(module.eval(), x)
            times = median_times(functions, arguments.repeats, 60.0)
            auto = "linear" if uses_linear((side, side)) else "exact"
            exact, linear = times["exact"], times["linear"]
            lines.append(f"| {place.name} | {1e3 * exact:.2f} | {1e3 * linear:.2f} | {linear / exact:.2f} | {auto} |")
            print(lines[-1], flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "crossover.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
