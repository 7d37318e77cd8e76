"""Ctrl-C and the end that a cluster announces (SIGTERM): the update in hand is finished and a checkpoint written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["StopSignals", "Stopped", "stop_signals"]


class Stopped(KeyboardInterrupt):
    """A training ends as somebody asked; its checkpoint is written.

    Args:
        number: the signal.

    Attributes:
        code: the exit code that shells give such an end.
    """

    def __init__(self, number: int) -> None:
        super().__init__("the same command goes on")
        self.code = 128 + number


class StopSignals:
    """What was asked; a second time ends the process at once.

    Attributes:
        number: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note a signal."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def check(self) -> None:
        """Raise :class:`Stopped` where a signal came."""
        if self.number is not None:
            raise Stopped(self.number)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Note SIGINT and SIGTERM in place of what they do, in a process's main thread."""
    asked = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
