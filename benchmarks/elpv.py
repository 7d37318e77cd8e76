"""Solar cells of the ELPV data set: 2,624 electroluminescence images of 300 x 300 pixels, with defects or without.

The package elpv-dataset has them (Buerhop-Lutz et al., 2018; Deitsch et al., 2019 and 2021), under CC BY-NC-SA 4.0: for
research, not for sale, and nothing of it lies in this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmarks.package_files import package_file

__all__ = ["COUNT", "elpv_files", "elpv_images", "elpv_labels", "elpv_split"]

COUNT = 2624
_TEST, _VAL = 656, 328


def _table() -> list[tuple[str, float]]:
    """File names and defect probabilities, in the package's order."""
    lines = package_file("elpv_dataset", "data/labels.csv").read_text().splitlines()
    return [(name, float(probability)) for name, probability, _ in map(str.split, lines)]


def elpv_files() -> list[Path]:
    """Paths of all images, in the package's order.

    Raises:
        UserError: the package is missing.
    """
    folder = package_file("elpv_dataset", "data")
    return [folder / name for name, _ in _table()]


def elpv_images(size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """All images as a model takes them.

    Args:
        size: side in pixels, to which they are resized, bicubic and antialiased.
        mean: the model's, of the three channels; grey values of 0 to 1 are repeated for each.
        std: likewise.

    Returns:
        (2624, 3, size, size), normalised.

    Raises:
        UserError: the package is missing.
    """
    grey = torch.empty(COUNT, 1, size, size)
    for i, path in enumerate(elpv_files()):
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image))[None, None].float() / 255
        grey[i] = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)[0].clamp(0, 1)
    return (grey - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def elpv_labels(classes: int = 2) -> Tensor:
    """What experts said of each cell, (2624,).

    Args:
        classes: four are the defect probabilities 0, 1/3, 2/3 and 1. Of two, class 1 holds those of 2/3 and 1 (821
            cells), so what is more probably defect than not; always saying 0 is right for 68.7 % of them.

    Raises:
        UserError: the package is missing.
    """
    probabilities = torch.tensor([probability for _, probability in _table()])
    return (probabilities >= 0.5).long() if classes == 2 else (3 * probabilities).round().long()


def elpv_split(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Which images to train on (1,640), to choose by (328) and to test on (656): shuffled, the same ones for a seed.

    Cells of one solar module may fall on both sides, as the package does not say which they are.
    """
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed))
    return order[_TEST + _VAL :], order[_TEST : _TEST + _VAL], order[:_TEST]
