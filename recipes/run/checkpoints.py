"""The state of a training on disk: whole or not at all, with the one before it in reserve."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line, system_reason
from cp_vision.shared.files import remove_unfinished

from ..data.failures import is_killed_worker

__all__ = ["load_state", "read_state", "save_state", "writing"]

LATEST, RESERVE = "checkpoint.pt", "checkpoint.previous.pt"


def save_state(state: dict[str, Any], folder: Path) -> None:
    """Write a state. Killed at any moment, this leaves a whole one, also where another process writes there.

    Args:
        state: tensors and plain values.
        folder: where; must be there.

    Raises:
        CommandError: it can't be written (a full disk); the states that are there stay.
    """
    unfinished = folder / f".checkpoint.{socket.gethostname()}-{os.getpid()}.unfinished"
    latest = folder / LATEST
    with writing(folder):
        with open(unfinished, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.replace(latest, folder / RESERVE)
        os.replace(unfinished, latest)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Write something into a training's folder; what is half written is removed where that fails.

    Raises:
        CommandError: a full disk, no permission.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        remove_unfinished(folder)
        if is_killed_worker(error):
            # It struck while this was written.
            raise
        reason = system_reason(error) or one_line(error)
        raise CommandError(
            f"can't write into {str(folder)!r}: {reason}; make room and run the same command again"
            f"{': it goes on from the last checkpoint' if any(folder.glob('checkpoint*.pt')) else ''}"
        ) from error


def load_state(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the latest state that can be read.

    Args:
        folder: where states were written.

    Returns:
        The state, or None where there is none, and a line for each one that couldn't be read.

    Raises:
        UserError: there are some, and none can be read.
    """
    problems: list[str] = []
    for path in (folder / LATEST, folder / RESERVE):
        if not path.exists():
            continue
        try:
            return read_state(path), problems
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"{'; '.join(problems)}; delete {str(folder)!r} to start again, or choose another --output")
    return None, problems


def read_state(path: Path) -> dict[str, Any]:
    """Read one state.

    Raises:
        UserError: no such file, or one that holds something else or can't be read.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or "progress" not in state:
            raise ValueError("it holds something else")
    except Exception as error:
        # Whatever a damaged file makes torch raise; of what is no file of its own it says how to run the code in it.
        strange = isinstance(error, pickle.UnpicklingError)
        reason = "it is none of cp-train" if strange else f"{type(error).__name__}: {one_line(error)[:120]}"
        raise UserError(f"checkpoint {str(path)!r} can't be read: {reason}") from error
    return state
