"""What other packages log and warn of while a command checks what it was given."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["held_back", "told_at_once"]

_LAST_RESORT, _SHOW = logging.lastResort, warnings.showwarning


@contextmanager
def held_back() -> Iterator[None]:
    """Hold it back to the end, each line once; where that is an error, it alone is told, in its one line.

    Loggers that somebody gave a handler go on to speak, and so do packages that print.
    """
    held = _Held()
    before = logging.lastResort, warnings.showwarning
    logging.lastResort, warnings.showwarning = held, held.keep
    try:
        yield
    finally:
        logging.lastResort, warnings.showwarning = before
    for tell in held.lines.values():
        tell()


def told_at_once() -> None:
    """Hold nothing back: in a process that was forked meanwhile and stays, which can't know how it ends."""
    logging.lastResort, warnings.showwarning = _LAST_RESORT, _SHOW


class _Held(logging.Handler):
    """Keeps what reaches logging's last resort, and warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: dict[str, Callable[[], None]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of a log."""
        self.lines.setdefault(record.getMessage(), lambda: logging.getLogger(record.name).handle(record))

    def keep(self, message: Warning | str, *where: Any, **more: Any) -> None:
        """Keep a warning, as ``warnings.showwarning`` gets it."""
        self.lines.setdefault(str(message), lambda: warnings.showwarning(message, *where, **more))
