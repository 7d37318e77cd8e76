"""Randomness that depends on the place in a training alone, not on what was drawn before.

So a training that goes on after a kill, or runs in another number of processes, draws what it would have drawn.
"""

from __future__ import annotations

import random

import numpy as np
import torch

__all__ = ["seed_all"]


def seed_all(*key: int) -> None:
    """Seed the random numbers of Python, NumPy and PyTorch in this process.

    Args:
        *key: whole numbers from 0; other keys give other, independent random numbers.
    """
    words = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    # torch.manual_seed looks for devices of every kind, which takes longer than many an image.
    torch.default_generator.manual_seed(int(words[2]))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(words[2]))
