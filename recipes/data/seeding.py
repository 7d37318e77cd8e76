"""Randomness that depends on the place in a training alone, not on what was drawn before.

So a training that goes on after a kill, or runs in another number of processes, draws what it would have drawn.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

__all__ = ["random_seeds", "seed_all", "seed_from"]


def seed_all(*key: int) -> None:
    """Seed the random numbers of Python, NumPy and PyTorch in this process.

    Args:
        *key: whole numbers from 0; other keys give other, independent random numbers.
    """
    seed_from(random_seeds(1, *key)[0])


def random_seeds(count: int, *key: int) -> Any:
    """Seeds for :func:`seed_from`, (count, 3): quicker than a key for each."""
    return np.random.SeedSequence(key).generate_state(3 * count).reshape(count, 3)


def seed_from(words: Any) -> None:
    """Seed the random numbers of Python, NumPy and PyTorch in this process from three 32-bit numbers."""
    random.seed(int(words[0]))
    np.random.seed(words[1])
    # torch.manual_seed looks for devices of every kind, which takes longer than many an image.
    torch.default_generator.manual_seed(int(words[2]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(words[2]))
