"""The processes that share a search: which of them are alive."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError

__all__ = ["FINISH", "Worker", "folder_lock", "is_alive", "last_beat"]

FINISH = ".finish.lock"
"""Held by the process that ends a search; see :func:`folder_lock`."""

WORKERS = ".workers"
"""Folder, in the output folder, with a locked file for each process."""

_BEAT = 20.0
_DEAD = 120.0
_PREFIX = "worker "

# A process may try its own locks again and get them, so it must know which are its own.
_own: set[str] = set()


class Worker:
    """This process as one of those that share a study.

    It holds a lock in the output folder, which the system frees when it ends, however it ends: processes that see
    the folder know at once. To those on other machines it tells the time in the study now and then.

    Args:
        study: the study.
        folder: output folder of the search.

    Attributes:
        at_end: called where it ends in order, be it by Ctrl-C, before the others hear of it.
    """

    def __init__(self, study: optuna.Study, folder: Path) -> None:
        self.study, self.output, self.folder = study, folder, folder / WORKERS
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.at_end: list[Callable[[], None]] = []
        self._stop = threading.Event()

    def __enter__(self) -> Worker:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / self.name
        # A lock that is made under its own name could be taken for a dead one before it is held.
        unfinished = path.with_name(f".{path.name}")
        self._file = unfinished.open("w")
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(unfinished, path)
        _own.add(self.name)
        self._tell(self.name, time.time())
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for call in self.at_end:
            # In order or not: of a storage that is away it can't be told.
            with contextlib.suppress(OptunaError, OSError):
                call()
        _own.discard(self.name)
        # What it held may be taken over at once.
        with contextlib.suppress(OptunaError, OSError):
            self._tell(self.name, 0.0)
        (self.folder / self.name).unlink(missing_ok=True)
        self._file.close()

    def _tell(self, name: str, moment: float) -> None:
        self.study.set_user_attr(_PREFIX + name, moment)

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT):
            # A storage that is busy or away for a moment hears of it next time; the search itself meets what lasts.
            with contextlib.suppress(Exception):
                self._tell(self.name, time.time())

    def is_alive(self, name: str) -> bool:
        """Whether another process of the study goes on, as far as can be told from here."""
        if is_alive(self.output, self.study.user_attrs, name):
            return True
        path = self.folder / name
        if is_here(name) and path.exists():
            # The others, who won't find the file any more, are told.
            self._tell(name, 0.0)
            path.unlink(missing_ok=True)
        return False


def is_alive(output: Path, attrs: dict[str, Any], name: str) -> bool:
    """Whether a process of a study goes on, as far as can be told from here; changes nothing.

    Args:
        output: output folder of the search.
        attrs: attributes of the study.
        name: of the process.
    """
    heard_of = last_beat(attrs, name) > time.time() - _DEAD
    if name in _own:
        return True
    if not is_here(name):
        # Network file systems don't always keep the locks of other machines.
        return heard_of
    try:
        # To share a lock it takes no right to write.
        with (output / WORKERS / name).open() as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return heard_of
    except OSError:
        return True
    return False


def is_here(name: str) -> bool:
    """Whether a process is one of this machine."""
    return name.rsplit("-", 2)[0] == socket.gethostname()


def last_beat(attrs: dict[str, Any], name: str) -> float:
    """When a process was last heard of, in seconds since 1970; 0 where it ended or never was."""
    return float(attrs.get(_PREFIX + name, 0.0))


@contextlib.contextmanager
def folder_lock(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold the lock for what only one process may write, or with :data:`FINISH` may end; waits for it."""
    with (folder / name).open("w") as lock:
        # A POSIX lock is the process's own: data loading processes that outlive it for a moment don't hold it.
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
