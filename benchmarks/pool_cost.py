"""What a context pool costs, beside the network block at its place and beside its rivals.

    python benchmarks/pool_cost.py                     # everything, about 20 minutes on 2 cores
    python benchmarks/pool_cost.py --places "resnet50 14x14" --no-compile

Writes ``operator.csv``, ``operator.md`` and ``operator.svg`` to ``--output``. Times are medians of one process in which
the methods of a place take turns; ratios are to the block of that place. Figures of different runs don't compare.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import csv
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

import cp_vision
from benchmarks.measure import median_times, peak_memory
from benchmarks.pool_cost_cases import METHODS, PLACES, Place, make_input, make_method
from benchmarks.pool_cost_report import write_report
from cp_vision.cost.macs import count_module
from cp_vision.cost.on_meta_device import meta_copy

COMPILED = ("block", "exact", "linear")


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [place.name for place in PLACES]
    parser.add_argument("--places", nargs="+", choices=names, default=names, metavar="PLACE", help=", ".join(names))
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--repeats", type=int, default=15, help="turns at most (default 15)")
    parser.add_argument("--seconds", type=float, default=15.0, help="time for the turns of a place (default 15)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for place in PLACES:
        if place.name in arguments.places:
            for row in measure_place(place, not arguments.no_compile, arguments.repeats, arguments.seconds):
                rows.append(row)
                print("  ".join(f"{key} {show(value)}" for key, value in row.items()), flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / "operator.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    machine = (
        f"{datetime.now(UTC):%Y-%m-%d}, {arguments.threads} threads of {platform.machine()}, "
        f"torch {torch.__version__}, cp-vision {cp_vision.__version__}, float32, channels last"
    )
    write_report(rows, machine, arguments.output)


def measure_place(place: Place, compiled: bool, repeats: int, seconds: float) -> list[dict[str, object]]:
    """All methods at one place, one row each."""
    x = make_input(place)
    modules: dict[str, nn.Module] = {}
    for name in METHODS:
        module = make_method(name, place)
        if module is not None:
            modules[name] = module
    macs = {name: count_module(meta_copy(module), tuple(x.shape[1:])) for name, module in modules.items()}
    if compiled:
        torch.compiler.reset()
        for name in COMPILED:
            if name in modules:
                modules[f"{name}, compiled"] = torch.compile(modules[name], fullgraph=True)
    forward = {name: inference(module.eval(), x) for name, module in modules.items()}
    forward_times = median_times(forward, repeats, seconds)
    memory = {name: peak_memory(function) for name, function in forward.items()}
    training = {name: step(module.train(), x) for name, module in modules.items()}
    step_times = median_times(training, repeats, seconds)
    step_memory = {name: peak_memory(function) for name, function in training.items()}
    rows = []
    for name in modules:
        eager = name.removesuffix(", compiled")
        rows.append(
            {
                "place": place.name,
                "method": name,
                "forward_ms": 1e3 * forward_times[name],
                "forward_ratio": forward_times[name] / forward_times["block"],
                "step_ms": 1e3 * step_times[name],
                "step_ratio": step_times[name] / step_times["block"],
                # The output isn't what a method needs to get there.
                "forward_mib": memory_above(memory[name], x),
                "step_mib": memory_above(step_memory[name], x),
                "mmacs": macs[eager] / 1e6,
                "macs_ratio": macs[eager] / macs["block"],
            }
        )
    return rows


def inference(module: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """A call without gradients."""

    def run() -> Tensor:
        with torch.no_grad():
            return module(x)

    return run


def step(module: nn.Module, x: Tensor) -> Callable[[], Tensor | None]:
    """A call and its backward pass, for the input and the parameters."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    def run() -> Tensor | None:
        x.grad = None
        y = module(x)
        y.backward(torch.ones((), dtype=y.dtype).expand_as(y))
        return x.grad

    return run


def memory_above(peak: int | None, output: Tensor) -> float | None:
    """MiB of a peak without an output as large as the input."""
    return None if peak is None else max(0, peak - output.nbytes) / 2**20


def show(value: object) -> str:
    """A figure as the terminal shows it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
