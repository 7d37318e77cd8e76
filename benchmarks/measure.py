"""Times and memory of functions, side by side in one process."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["median_times", "peak_memory"]


def median_times(functions: dict[str, Callable[[], object]], repeats: int, seconds: float) -> dict[str, float]:
    """Median time of each function in seconds, the functions taking turns so that all meet the same machine.

    Args:
        functions: what to time, by name.
        repeats: turns at most; at least three.
        seconds: after this much time no new turn begins.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    began = time.perf_counter()
    for turn in range(repeats):
        if turn >= 3 and time.perf_counter() - began > seconds:
            break
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


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
