"""Addresses of studies: the same from any folder, and without their passwords."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

__all__ = ["absolute_address", "file_of", "hide_password", "hide_password_in_address"]

_JOURNAL = "journal:"
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]*)(.*)", re.DOTALL)
# Between the name of a user, which may be empty, and the last @: a password may hold anything, an @ too.
_PASSWORD = re.compile(r"(://[^:/@\s]*):(?:\S*|[^@]*)@")
_PASSWORD_OF_WORD = re.compile(r"(://[^:/@]*):.*@", re.DOTALL)
_QUERY = re.compile(r"([?&][^=&\s]*(?:pass|pwd|secret|token)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)
_QUERY_OF_WORD = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]+", re.IGNORECASE)


def file_of(address: str) -> Path | None:
    """The file that an address names; None where it is a server's, or in memory."""
    if address.startswith(_JOURNAL):
        return Path(address.removeprefix(_JOURNAL).removeprefix("//"))
    found = _SQLITE.fullmatch(address)
    if found is None or found[2] in ("", ":memory:") or found[2].startswith("file:"):
        return None
    return Path(found[2])


def absolute_address(address: str) -> str:
    """An address that names the same study from any folder."""
    path = file_of(address)
    if path is None or path.is_absolute():
        return address
    if address.startswith(_JOURNAL):
        return f"{_JOURNAL}{path.resolve()}"
    return _SQLITE.sub(lambda found: f"{found[1]}{path.resolve()}{found[3]}", address)


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
