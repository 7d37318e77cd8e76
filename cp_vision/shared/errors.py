"""One exception for mistakes that a user can mend, and the hint that names the closest valid value."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable


class UserError(ValueError):
    """A value that the user gave can't be used.

    The message is one line: the value, what is allowed, what to do. Command lines print it and exit with
    code 2; from Python it is an ordinary ``ValueError``.

    Attributes:
        told_elsewhere: whether another process of the same command prints it.
    """

    told_elsewhere = False


def closest(name: str, allowed: Iterable[str], count: int = 3) -> str:
    """Return ``"; did you mean 'a' or 'b'?"``, or an empty string where nothing is close."""
    matches = difflib.get_close_matches(name, list(allowed), n=count, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(m) for m in matches)}?" if matches else ""


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Join names for a message, the first ``limit`` of them."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest if names else "none"


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, or the name of its type where it has none."""
    return " ".join(str(error).split())[:400] or type(error).__name__


def system_reason(error: BaseException | None) -> str | None:
    """Why the system refused a file, in its words ("No space left on device"), where that lies behind an error.

    Torch raises another error while it ends a file that couldn't be written, safetensors and SQLite say it in a text,
    and Optuna in neither.
    """
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is not None:
            return os.strerror(int(number[1]))
        if "database or disk is full" in str(error):
            return os.strerror(errno.ENOSPC)
        error = error.__cause__ or error.__context__
    return None
