"""Failures of loading workers, which torch raises wherever the main process is at that moment."""

from __future__ import annotations

from cp_vision.shared.errors import one_line

__all__ = ["is_killed_worker", "reason_of"]


def is_killed_worker(error: BaseException) -> bool:
    """Whether the system has ended a loading worker, mostly for want of memory: no fault of what was trained."""
    return isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error)


def reason_of(error: BaseException) -> str:
    """What went wrong, on one line; of what a worker passes on, with its traceback, the end."""
    if is_killed_worker(error):
        return (
            f"the system ended a loading worker ({one_line(error)[:100]}), mostly for want of memory; lower workers or "
            "batch_size"
        )
    lines = str(error).strip().splitlines() or [""]
    text = lines[-1] if "DataLoader worker process" in lines[0] else f"{type(error).__name__}: {one_line(error)}"
    return text[:400]
