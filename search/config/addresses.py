"""Addresses of studies: the same from any folder, safe for Optuna, and without their passwords."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

__all__ = [
    "absolute_address",
    "file_of",
    "hide_password",
    "hide_password_in_address",
    "is_in_memory",
    "optuna_address",
    "sqlite_address",
]

_JOURNAL = "journal:"
# Between the name of a user, which may be empty, and the last @: a password may hold anything, an @ too, which
# SQLAlchemy would take for the end of it.
_PASSWORD = re.compile(r"(://[^:/@\s]*):(?:\S*|[^@]*)@")
_PASSWORD_OF_WORD = re.compile(r"(://[^:/@]*):.*@", re.DOTALL)
_QUERY = re.compile(r"([?&][^=&\s]*(?:pass|pwd|secret|token)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)
_QUERY_OF_WORD = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]+", re.IGNORECASE)


def _sqlite(address: str) -> URL | None:
    """The address as SQLAlchemy reads it, where it names a SQLite database."""
    if not address.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        # Whoever opens it says so.
        return None
    return url if url.get_backend_name() == "sqlite" else None


def is_in_memory(address: str) -> bool:
    """Whether an address names a SQLite database that ends with its process."""
    url = _sqlite(address)
    if url is None:
        return False
    return url.database in (None, "", ":memory:", "file::memory:") or url.query.get("mode") == "memory"


def file_of(address: str) -> Path | None:
    """The file that an address names; None where it is a server's, or in memory."""
    if address.startswith(_JOURNAL):
        return Path(address.removeprefix(_JOURNAL).removeprefix("//"))
    url = _sqlite(address)
    if url is None or is_in_memory(address) or str(url.database).startswith("file:"):
        return None
    return Path(str(url.database))


def absolute_address(address: str) -> str:
    """An address that names the same study from any folder."""
    path, url = file_of(address), _sqlite(address)
    if path is None or path.is_absolute():
        return address
    if url is None:
        return f"{_JOURNAL}{path.resolve()}"
    return url.set(database=str(path.resolve())).render_as_string(hide_password=False)


def sqlite_address(path: Path) -> str:
    """The address of a SQLite file, whatever its name holds."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path.resolve())).render_as_string(hide_password=False)


def optuna_address(address: str) -> str:
    """An address for Optuna, which formats it as a template and so takes a pair of braces for one."""
    return address.replace("{", "{{").replace("}", "}}")


def hide_password_in_address(address: str) -> str:
    """An address without its password."""
    if "://" not in address:
        return address
    return _QUERY_OF_WORD.sub(r"\1***", _PASSWORD_OF_WORD.sub(r"\1:***@", address))


def hide_password(text: str) -> str:
    """A command, or another text, without the passwords in addresses of databases."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if shlex.join(words) == text:
        # A command: it is known where each word ends, whatever a password holds.
        return " ".join(_quoted(word) for word in words)
    return _QUERY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text)) if "://" in text else text


def _quoted(word: str) -> str:
    hidden = hide_password_in_address(word)
    # The stars alone need no quotes for people.
    return hidden if shlex.quote(word) == word else shlex.quote(hidden)
