"""The trained weights of candidates in the output folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from cp_vision import Architecture

__all__ = ["are_kept", "keep_weights", "weights_folder"]


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
    text = architecture.to_json() + ("" if img_size is None else f" {img_size}")
    text += "" if seed is None else f" seed {seed}"
    return output / "weights" / hashlib.sha256(text.encode()).hexdigest()[:12]


def are_kept(folder: Path) -> bool:
    """Whether a folder of :func:`weights_folder` holds weights."""
    return (folder / "model.safetensors").is_file()


def keep_weights(
    output: Path, kept: Iterable[tuple[Architecture, int | None] | tuple[Architecture, int | None, int | None]]
) -> None:
    """Delete the weights of all candidates but these, so that the disk stays bounded.

    Args:
        output: output folder of the search.
        kept: architectures, image sizes, and where it is not the recipe's, the seed.
    """
    folders = {weights_folder(output, *candidate) for candidate in kept}
    for folder in (output / "weights").glob("*/"):
        # One that is being written begins with a dot.
        if folder not in folders and not folder.name.startswith("."):
            shutil.rmtree(folder, ignore_errors=True)
