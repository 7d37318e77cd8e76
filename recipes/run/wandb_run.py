"""A run of Weights & Biases for a training: one run, however often the training is stopped and goes on."""

from __future__ import annotations

import contextlib
import importlib.util
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line
from cp_vision.shared.files import is_no_room, write_text

from ..recipe.keys import Recipe

__all__ = ["check_wandb", "wandb_run"]

# Holds the run's id, so that the same command goes on in the same run.
ID_FILE = "wandb_run.txt"


def check_wandb(recipe: Recipe) -> None:
    """Raise a UserError where a recipe asks for wandb and it is not installed."""
    if recipe.log_wandb and importlib.util.find_spec("wandb") is None:
        raise UserError("log_wandb: wandb is not installed; pip install 'cp-vision[track]', or leave log_wandb out")


@contextlib.contextmanager
def wandb_run(recipe: Recipe, output: Path) -> Iterator[Any]:
    """Begin a run, or go on with the one that was begun for this folder; None where the recipe asks for none.

    The run's name is the folder's, its configuration the recipe. It is marked as failed after an exception.

    Args:
        recipe: asks for it, and names project, tags, and the run to go on with.
        output: the training's folder, which gets wandb's files, too.

    Raises:
        UserError: wandb can't begin a run (nobody is logged in, no network, no such run).
        OSError: there is no room for its files.
        CommandError: it can't end the run of a training that is done.
    """
    if not recipe.log_wandb:
        yield None
        return
    import wandb

    known = output / ID_FILE
    named = recipe.wandb_resume_id or (known.read_text().strip() if known.is_file() else "")
    number = named or uuid.uuid4().hex[:8]
    try:
        run = wandb.init(
            project=recipe.wandb_project,
            name=output.name,
            tags=recipe.wandb_tags,
            config=recipe.model_dump(exclude_none=True),
            dir=str(output),
            id=number,
            resume="must" if recipe.wandb_resume_id else "allow",
        )
    except Exception as error:
        if is_no_room(error):
            raise
        # Whatever wandb, its server or the network raises.
        raise UserError(
            f"log_wandb: wandb can't begin a run: {one_line(error)}; set WANDB_MODE=offline to write it into "
            f"{str(output)!r} alone"
        ) from error
    write_text(known, number + "\n")
    try:
        yield run
    except BaseException:
        # As at the end of `with run`, which prints the traceback, too. This error is the one to be told.
        with contextlib.suppress(Exception):
            run.finish(exit_code=1)
        raise
    try:
        run.finish(exit_code=0)
    except Exception as error:
        raise CommandError(
            f"log_wandb: the training is done, but wandb can't end its run: {one_line(error)}; wandb sync sends what "
            f"{str(output)!r} has of it"
        ) from error
