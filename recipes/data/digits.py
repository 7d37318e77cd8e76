"""The handwritten digits that scikit-learn bundles, as a data set with a train and a test split."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import Dataset

__all__ = ["SPLIT_SEED", "Digits"]

# Fixed for good: which images are for the test or held out must never depend on a seed of the user's.
SPLIT_SEED = 0
_TEST_SHARE = 0.2


class Digits(Dataset):
    """Scikit-learn's 1,797 handwritten digits: grey images of 8 x 8 pixels. A fifth of each class is the test split.

    Args:
        train: the training split, or the test split.
    """

    class_to_idx = {str(digit): digit for digit in range(10)}  # noqa: RUF012 - torchvision's name, never changed

    def __init__(self, train: bool) -> None:
        digits = load_digits()
        rows = train_test_split(
            np.arange(len(digits.target)), test_size=_TEST_SHARE, random_state=SPLIT_SEED, stratify=digits.target
        )[0 if train else 1]
        # Pixels count 0 to 16 dots of ink.
        self.images = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)
        self.targets: list[int] = digits.target[rows].tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), self.targets[index]
