"""Times and memory of functions, side by side in one process."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Spread", "median_times", "peak_memory", "spread", "times_in_turn"]


class Spread(NamedTuple):
    """A median, the quartiles about it, and how many values they are of."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; of a single value, which is counted rather than measured, all are that."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * list(values)
    return Spread(median, low, high, len(values))


def times_in_turn(
    functions: Mapping[str, Callable[[], object]], repeats: int, seconds: float, least: int = 3
) -> dict[str, list[float]]:
    """Times of each function in seconds, the functions taking turns so that all meet the same machine.

    Every turn begins with another one. Before the first, each function is called once without a clock.

    Args:
        functions: what to time, by name.
        repeats: turns at most.
        seconds: after this much time no new turn begins.
        least: turns at least, whatever time they take.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    names = list(functions)
    began = time.perf_counter()
    for turn in range(repeats):
        if turn >= least and time.perf_counter() - began > seconds:
            break
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            functions[name]()
            times[name].append(time.perf_counter() - start)
    return times


def median_times(functions: Mapping[str, Callable[[], object]], repeats: int, seconds: float) -> dict[str, float]:
    """Median time of each function in seconds; the arguments are those of :func:`times_in_turn`."""
    return {name: statistics.median(times) for name, times in times_in_turn(functions, repeats, seconds).items()}


def peak_memory(function: Callable[[], object]) -> int | None:
    """Bytes that a call adds to the resident memory at its peak, its result included; None where not on Linux."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status(status, "VmRSS")
    reset.write_text("5")
    result = function()
    peak = _status(status, "VmHWM")
    del result
    return peak - before


def _status(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024
