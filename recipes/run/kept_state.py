"""A training whose state is kept beside it: after a kill the same call goes on, and ends with the same weights."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError
from cp_vision.shared.files import remove_unfinished

from ..training.trainer import Trainer
from .checkpoints import load_state, save_state, writing

__all__ = ["KeptState", "updates_done"]

# Of a training's time that writing may take, and seconds from one state to the next at the least.
_SHARE, _LEAST = 0.05, 1.0


class KeptState:
    """The state of a training in one process, in a folder of its own.

    It is written after the first update, so that whatever is killed after that has got further, and then as often as
    that takes no more than a twentieth of the time: also within epochs.

    Args:
        trainer: the training; it is put where the state in the folder is.
        folder: made with the first state.
        identity: what makes this training another one than any other, as JSON values: a state with another identity
            is not gone on from, and neither is one that can't be read.
    """

    def __init__(self, trainer: Trainer, folder: Path, identity: Mapping[str, Any]) -> None:
        self.trainer, self.folder, self.identity = trainer, folder, dict(identity)
        self._began, self._due, self._before = time.monotonic(), 0.0, 0.0
        # What a kill left half written.
        remove_unfinished(folder)
        state = _read(folder)
        if state is not None and state.get("identity") == self.identity:
            trainer.load_state_dict(state)
            self._before = state["seconds"]
            if trainer.loader.unreadable is not None:
                trainer.loader.unreadable.look_again(state["unreadable"])

    @property
    def seconds(self) -> float:
        """Seconds that the training has taken so far, also before it was killed."""
        return self._before + time.monotonic() - self._began

    def after_update(self) -> None:
        """Write the state where it is due.

        Raises:
            CommandError: it can't be written (a full disk).
        """
        began = time.monotonic()
        if began < self._due:
            return
        unreadable = self.trainer.loader.unreadable
        more = {
            "identity": self.identity,
            "seconds": self.seconds,
            "unreadable": {} if unreadable is None else unreadable.found,
        }
        try:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            save_state({**self.trainer.state_dict(), **more}, self.folder)
        except CommandError as error:
            # Another process, which took this one for dead, has finished the training and removes the folder.
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
        now = time.monotonic()
        self._due = now + max(_LEAST, (now - began) / _SHARE)

    def remove(self) -> None:
        """Remove the folder, and the one that it lies in where that is empty then."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


def updates_done(folder: Path) -> tuple[int, int]:
    """Whole epochs and updates of the next one that the training in a folder has behind it; (0, 0) without a state."""
    state = _read(folder)
    return (0, 0) if state is None else (state["progress"]["epoch"], state["progress"]["update"])


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        return load_state(folder)[0]
    except UserError:
        # Damaged, as by a disk that fails: the training begins at its start.
        return None
