"""What a context pool costs: beside the block at its place, beside rivals, exact beside linear, and in whole models.

    python benchmarks/operator.py                   # everything, into benchmarks/results/
    python benchmarks/operator.py --only models     # one section, printed
    python benchmarks/operator.py --quick           # whether it runs, printed; its figures say nothing

What is compared takes turns in one process; figures are medians with their quartiles, and ratios are those of single
turns. Nothing else may run on the machine. Figures of different runs don't compare.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout: in this file's folder Python's own `operator` would be this one.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import csv
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import cp_vision
from benchmarks.measure import Spread, peak_memory, spread, times_in_turn
from benchmarks.operator_report import Figure, draw, tables
from benchmarks.pool_places import PLACES, Place, make_input, make_method

MODELS = ("resnet50", "vit_small_patch16_224", "swin_tiny_patch4_window7_224", "convnext_tiny")
# Above this many at work, on average over the last minute, the machine isn't idle: importing alone makes it 0.2.
MOST_LOAD = 0.5


class Effort(NamedTuple):
    """How much is run: images at once, turns at most and at least, seconds after which only the least are taken."""

    batch: int
    turns: int
    least: int
    seconds: float
    places: tuple[Place, ...]
    sides: Sequence[int]


FULL = Effort(8, 15, 5, 4.0, PLACES, range(10, 30, 2))
QUICK = Effort(1, 2, 2, 0.0, PLACES[3:5], (10, 20))


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, help="one section")
    parser.add_argument("--quick", action="store_true", help="small maps, single images, two turns")
    parser.add_argument("--output", type=Path, help="folder to write to (default, for a whole run: benchmarks/results)")
    arguments = parser.parse_args()
    if os.environ.get("CP_VISION_CPU_KERNEL") == "0":
        parser.error("CP_VISION_CPU_KERNEL=0 leaves out the compiled kernel, which is to be measured; unset it")
    output = arguments.output
    if output is None and not arguments.quick and not arguments.only:
        output = Path(__file__).parent / "results"
    load, effort = os.getloadavg()[0], QUICK if arguments.quick else FULL
    if not arguments.quick:
        torch.set_num_threads(os.cpu_count() or 1)
    header = [
        "# What a context pool costs",
        "",
        f"Made by `{' '.join(['python benchmarks/operator.py', *sys.argv[1:]])}` on {datetime.now(UTC):%d %B %Y}:",
        f"{torch.get_num_threads()} threads of {processor()}, load average {load:.2f} at the start,",
        f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__},",
        f"cp-vision {cp_vision.__version__}; float32, batches of {effort.batch}. Figures are medians with [quartiles].",
        "",
    ]
    if load > MOST_LOAD or arguments.quick:
        reason = "A quick run" if arguments.quick else "The machine was not idle"
        header += [f"**{reason}: these figures say nothing.**", ""]
    print("\n".join(header), flush=True)
    figures = []
    for section in [arguments.only] if arguments.only else SECTIONS:
        for figure in SECTIONS[section](effort):
            figures.append(figure)
            print(*figure[:-1], *(f"{value:.4g}" for value in figure.value), sep=", ", flush=True)
    report = "\n".join([*header, *tables(figures, effort.batch)])
    print(f"\n{report}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        with (output / "operator.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*Figure._fields[:-1], *Spread._fields])
            writer.writerows([*figure[:-1], *figure.value] for figure in figures)
        (output / "operator.md").write_text(report)
        if "pools" in {figure.section for figure in figures}:
            draw(figures, output / "operator.svg")


def measure_pools(effort: Effort) -> Iterator[Figure]:
    """Every method at every place in every layout; at last the linear backend in a process without compiled kernel."""
    for place in effort.places:
        for layout in place.layouts:
            yield from measure_place(place, layout, place.methods, effort)
    # A process may take the kernel once and for all. Without a safe path its modules were searched in the folder that
    # the command was given in, which may be this file's.
    os.environ.update(CP_VISION_CPU_KERNEL="0", PYTHONSAFEPATH="1")
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (torch.get_num_threads(),)) as process:
        for place in effort.places:
            for layout in place.layouts:
                figures = process.submit(measure_place, place, layout, ["block", "linear"], effort).result()
                yield from (f._replace(method="linear, no kernel") for f in figures if f.method == "linear")
    del os.environ["CP_VISION_CPU_KERNEL"], os.environ["PYTHONSAFEPATH"]


def measure_place(place: Place, layout: str, methods: list[str], effort: Effort) -> list[Figure]:
    """The methods at a place, each in turn with the first one; memory and MACs."""
    at = ("pools", place.name, layout)
    x = make_input(place, min(place.batch, effort.batch), layout)
    modules = {name: make_method(name, place, x, layout) for name in methods}
    figures = []
    for name in methods[1:]:
        # The default pool is what the goals are for, so it gets all turns.
        enough = effort._replace(least=effort.turns) if name == "auto" else effort
        pair = {methods[0]: modules[methods[0]], name: modules[name]}
        figures += compare(at, pair, x, POOL_PHASES, enough)
    for name, module in modules.items():
        step = forward_and_backward(module, x)
        step()
        peaks = [peak for peak in (peak_memory(step) for _ in range(3)) if peak is not None]
        if peaks:
            figures.append(Figure(*at, name, "maps", spread([peak / x.nbytes - 1 for peak in peaks])))
        # An exported graph, which computes what the pool does, can't be counted.
        if name != "auto, exported":
            macs = cp_vision.count_macs(module, tuple(x.shape[1:]))
            figures.append(Figure(*at, name, "MMACs", spread([macs / 1e6])))
    return figures


def measure_crossing(effort: Effort) -> Iterator[Figure]:
    """The exact and the linear backend on square maps, channels last."""
    for channels in (256, 1024):
        for side in effort.sides:
            place, layout = Place(channels, side, side), "channels last"
            x = make_input(place, effort.batch, layout)
            pair = {name: make_method(name, place, x, layout) for name in ("exact", "linear")}
            yield from compare(("crossing", place.name, layout), pair, x, POOL_PHASES, effort)


def measure_profile(effort: Effort) -> Iterator[Figure]:
    """What the operators of a default pool take of its time, forward and backward, channels last."""
    for place in effort.places:
        layout = "channels last"
        x = make_input(place, min(place.batch, effort.batch), layout)
        step = forward_and_backward(make_method("auto", place, x, layout), x)
        step()
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            for _ in range(effort.turns):
                step()
        times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
        for name in sorted(times, key=lambda name: -times[name])[:8]:
            yield Figure("profile", place.name, layout, name, "share", spread([times[name] / sum(times.values())]))


def measure_models(effort: Effort) -> Iterator[Figure]:
    """Models with their default pools and their bases."""
    for base in MODELS:
        torch.manual_seed(0)
        pair = {name: timm.create_model(name) for name in (base, f"cp_{base}")}
        images = torch.randn(effort.batch, 3, 224, 224)
        phases = {"evaluation": forward, "training step": training_step}
        longer = effort._replace(seconds=15 * effort.seconds)
        yield from compare(("models", base, "planar"), pair, images, phases, longer)
        for name, model in pair.items():
            macs = cp_vision.count_macs(model, (3, 224, 224))
            yield Figure("models", base, "planar", name, "MMACs", spread([macs / 1e6]))


SECTIONS = {
    "pools": measure_pools,
    "profile": measure_profile,
    "crossing": measure_crossing,
    "models": measure_models,
}
Call = Callable[[], object]


def compare(
    at: tuple[str, str, str], pair: dict[str, nn.Module], x: Tensor, phases: dict[str, Callable], effort: Effort
) -> Iterator[Figure]:
    """Milliseconds of two modules in turn, and the second's ratio to the first in the same turn.

    Args:
        at: section, place and layout.
        pair: two modules by the names of their methods.
        x: their input.
        phases: what is timed, as a function of module and input that makes the call to time.
        effort: how many turns.
    """
    first, second = pair
    for phase, prepare in phases.items():
        calls = {name: prepare(module, x) for name, module in pair.items()}
        times = times_in_turn(calls, effort.turns, effort.seconds, effort.least)
        for name in pair:
            yield Figure(*at, name, f"{phase}, ms", spread([1e3 * value for value in times[name]]))
        ratios = [b / a for a, b in zip(times[first], times[second], strict=True)]
        yield Figure(*at, second, f"{phase}, ratio", spread(ratios))


def forward(module: nn.Module, x: Tensor) -> Call:
    """A call in evaluation, without gradients."""
    module.eval()
    return torch.no_grad()(lambda: module(x))


def forward_and_backward(module: nn.Module, x: Tensor) -> Call:
    """A call in training and its backward pass, for input and parameters, from a dense gradient."""
    module.train()
    x = x.detach().requires_grad_()
    gradient = torch.randn_like(module(x))
    inputs = (x, *module.parameters())
    return lambda: torch.autograd.grad(module(x), inputs, gradient)


def training_step(model: nn.Module, images: Tensor) -> Call:
    """Forward pass, cross-entropy, backward pass and a step of SGD, at a rate of zero so that no weight changes."""
    model.train()
    targets = torch.arange(len(images))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()

    return step


POOL_PHASES = {"forward": forward, "forward + backward": forward_and_backward}


def processor() -> str:
    """The processor's name."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
