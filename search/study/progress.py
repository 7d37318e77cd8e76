"""Where the training of a candidate keeps its state, and how far that has got."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cp_vision import Architecture

__all__ = ["TRAINING", "candidate_name", "progress_of", "training_folder"]

TRAINING = ".training"
"""Folder, in the output folder, with a folder for each candidate that is being trained."""


def candidate_name(architecture: Architecture, img_size: int | None = None, seed: int | None = None) -> str:
    """Name of a candidate's folders.

    Args:
        architecture: the candidate.
        img_size: side of its images in pixels; None is the recipe's.
        seed: of its training; None is the recipe's.
    """
    text = architecture.to_json() + ("" if img_size is None else f" {img_size}")
    text += "" if seed is None else f" seed {seed}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def training_folder(
    output: Path, architecture: Architecture, img_size: int | None = None, seed: int | None = None
) -> Path:
    """Where a candidate's training keeps its state; arguments as of :func:`candidate_name`.

    Args:
        output: output folder of the search.
    """
    return output / TRAINING / candidate_name(architecture, img_size, seed)


def progress_of(
    output: Path, architecture: Architecture, img_size: int | None = None, seed: int | None = None
) -> tuple[int, int]:
    """Whole epochs and updates of the next one that a candidate's training has behind it; (0, 0) without a state."""
    folder = training_folder(output, architecture, img_size, seed)
    if not folder.exists():
        return 0, 0
    # It takes torch.
    from ...recipes.run.kept_state import updates_done

    return updates_done(folder)
