"""Ctrl-C is never lost: Python drops an exception raised while it finalises an object or is called back from C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["check_interrupt", "noted_interrupts"]


class _Noted:
    came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


_noted = _Noted()


@contextlib.contextmanager
def noted_interrupts() -> Iterator[None]:
    """Note SIGINT beside raising KeyboardInterrupt, in a process's main thread and where Ctrl-C raises that."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _noted.came = False
    signal.signal(signal.SIGINT, _noted)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _noted:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def check_interrupt() -> None:
    """Raise KeyboardInterrupt again where a noted one was lost; called wherever a long command shows its progress."""
    if _noted.came:
        raise KeyboardInterrupt
