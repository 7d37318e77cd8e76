"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .command_line import CommandError
from .errors import UserError

__all__ = [
    "check_path",
    "is_no_room",
    "make_folder",
    "needs_room",
    "remove_unfinished",
    "whole_file",
    "whole_folder",
    "write_text",
]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UserError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't make the folder {str(folder)!r}: {error.strerror}; choose another --output") from error


def check_path(path: Path) -> None:
    """Raise a UserError where nothing can ever be written under this path (too long, a NUL in it, under a file)."""
    try:
        path.stat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"output {str(path)[:80]!r} can't be used: {reason}; choose another --output") from error


def is_no_room(error: BaseException) -> bool:
    """Whether it says that a disk is full, or a quota used up."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


@contextmanager
def needs_room(folder: Path) -> Iterator[None]:
    """Say in one line that a disk is full, or a quota used up, where files are written into a folder.

    Raises:
        CommandError: in place of the system's error, which names no file.
    """
    try:
        yield
    except OSError as error:
        if not is_no_room(error):
            raise
        raise CommandError(
            f"can't write into {str(folder)!r}: {error.strerror}; make room and run the same command again: nothing "
            "that was finished is lost"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which then takes the place of ``path``; after an error it is removed."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which then takes the place of ``folder``; after an error it is removed."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _replace_folder(unfinished, folder)


def _replace_folder(finished: Path, folder: Path) -> None:
    """Give a finished folder its name, in place of an older folder of that name."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(finished, folder)
    shutil.rmtree(old, ignore_errors=True)


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what an error or a kill left half written directly in a folder, where nobody else writes it now.

    Args:
        folder: the folder.
        name: of the files that were written, as a pattern.
    """
    for unfinished in folder.glob(f".{name}.unfinished"):
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str, private: bool = False) -> None:
    """Write a text file; a reader sees the old one or the new one, never half of it, whoever else writes it.

    Args:
        path: the file.
        text: what it holds.
        private: whether its owner alone may read it, from the first moment on.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.unfinished")

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600 if private else 0o666)

    try:
        unfinished.unlink(missing_ok=True)
        # Names that are no valid text (odd bytes in a path) must not cost the file.
        with open(unfinished, "w", encoding="utf-8", errors="replace", newline="\n", opener=opener) as file:
            file.write(text)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
