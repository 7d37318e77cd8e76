"""Ctrl-C and SIGTERM are never lost: Python drops what is raised in finalisers, and in calls back from C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Terminated", "check_interrupt", "interrupts_unwrapped", "noted_interrupts"]


class Terminated(KeyboardInterrupt):
    """The end of a command that SIGTERM asks for, as a cluster's scheduler does: as Ctrl-C, but for the exit code.

    Attributes:
        code: the exit code.
    """

    code = 128 + signal.SIGTERM


class _Noted:
    def __init__(self) -> None:
        self.stop: type[KeyboardInterrupt] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.stop = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        raise self.stop


_noted = _Noted()
# What the signals do in a process that nobody told otherwise.
_DEFAULTS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextlib.contextmanager
def noted_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt for both, and note it, in a process's main thread and where they do their default."""
    in_main = threading.current_thread() is threading.main_thread()
    taken = [number for number, default in _DEFAULTS.items() if in_main and signal.getsignal(number) is default]
    for number in taken:
        signal.signal(number, _noted)
    try:
        with interrupts_unwrapped():
            yield
    finally:
        _noted.stop = None
        for number in taken:
            if signal.getsignal(number) is _noted:
                signal.signal(number, _DEFAULTS[number])


@contextlib.contextmanager
def interrupts_unwrapped() -> Iterator[None]:
    """Raise it again where others made an error of it: pydantic does, of whatever is raised in its calls back."""
    try:
        yield
    except Exception as error:
        if _noted.stop is not None:
            raise _noted.stop from error
        raise


def check_interrupt() -> None:
    """Raise it again where it was lost; called wherever a long command shows its progress."""
    if _noted.stop is not None:
        raise _noted.stop
