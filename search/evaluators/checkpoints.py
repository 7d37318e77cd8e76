"""The trained weights of candidates in the output folder, and the states of their trainings."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from cp_vision import Architecture

from ..study.progress import TRAINING, candidate_name

__all__ = ["are_kept", "keep_weights", "weights_folder"]

WEIGHTS = "weights"


def weights_folder(
    output: Path, architecture: Architecture, img_size: int | None = None, seed: int | None = None
) -> Path:
    """Where the weights of a candidate are kept.

    Args:
        output: output folder of the search.
        architecture: the candidate.
        img_size: side of its images in pixels; None is the recipe's.
        seed: of its training; None is the recipe's.
    """
    return output / WEIGHTS / candidate_name(architecture, img_size, seed)


def are_kept(folder: Path) -> bool:
    """Whether a folder of :func:`weights_folder` holds weights."""
    return (folder / "model.safetensors").is_file()


def keep_weights(
    output: Path, kept: Iterable[tuple[Architecture, int | None] | tuple[Architecture, int | None, int | None]]
) -> None:
    """Delete the weights of all candidates but these, so that the disk stays bounded, and the states of trainings.

    Args:
        output: output folder of the search.
        kept: architectures, image sizes, and where it is not the recipe's, the seed: of those whose weights are kept,
            and of those that are being trained.
    """
    names = {candidate_name(*candidate) for candidate in kept}
    for parent in (output / WEIGHTS, output / TRAINING):
        for folder in parent.glob("*/"):
            # One that is being written begins with a dot.
            if folder.name not in names and not folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        # Where it is there, and empty.
        (output / TRAINING).rmdir()
