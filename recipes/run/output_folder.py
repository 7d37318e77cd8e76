"""Whether a folder is free for a training, or that of the same one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cp_vision.shared.errors import UserError
from cp_vision.shared.files import check_path

from ..recipe.keys import Recipe, load_recipe

__all__ = ["FREE_KEYS", "alone_in", "check_folder", "has_checkpoint"]

LOCK = ".lock"

# What may differ when a training goes on: it changes nothing in the weights.
FREE_KEYS = {
    *("workers", "log_interval", "recovery_interval", "validation_batch_size", "data_dir", "dataset_download"),
    *("checkpoint_hist", "log_wandb", "wandb_project", "wandb_tags", "wandb_resume_id"),
}


def has_checkpoint(output: Path) -> bool:
    """Whether a training can go on from this folder."""
    return any(output.glob("checkpoint*.pt"))


def check_folder(output: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Make sure that a folder is free or of this training; returns its summary if it is done."""
    check_path(output)
    if output == Path.cwd():
        raise UserError(f"output {str(output)!r} is the current folder; name a new one")
    if _is_empty(output):
        return None
    if not (output / "recipe.yaml").is_file():
        raise UserError(f"output {str(output)!r} is there and holds no training; choose another --output")
    theirs, ours = (one.model_dump(exclude=FREE_KEYS) for one in (load_recipe(output / "recipe.yaml"), recipe))
    for key in ours:
        if ours[key] != theirs[key]:
            raise UserError(
                f"output {str(output)!r} holds a training with {key} {theirs[key]!r}, this one has {ours[key]!r}; "
                "choose another --output"
            )
    summary = output / "summary.json"
    if not summary.is_file():
        return None
    finished: dict[str, Any] = json.loads(summary.read_text())
    return finished


@contextlib.contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """Keep other processes from training into this folder; the system lets go of it however this one ends.

    Raises:
        UserError: another one is at work there.
    """
    with (output / LOCK).open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A network file system without locks leaves it to its users; only those held by others say so.
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(
                    f"output {str(output)!r}: another process is training there; wait for it, or choose another "
                    "--output"
                ) from error
        yield


def _is_empty(folder: Path) -> bool:
    """Whether a folder isn't there, or holds nothing but a lock and what a kill left half written."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name == LOCK or path.match(".*.unfinished") for path in folder.iterdir())
