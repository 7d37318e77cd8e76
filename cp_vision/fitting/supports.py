"""Supports that pools of a stand-in may start from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ..layers.context_pool_2d import ContextPool2d
from ..layers.gaussian_pool import GaussianPool

__all__ = ["set_supports", "starting_supports"]

# In pixels: 0.8 has the variance of an average of 3 x 3.
_STARTS = (0.5, 0.8, 1.2, 2.0)


def starting_supports(stand_in: Any, grid: tuple[int, int]) -> list[tuple[float, ...]]:
    """Supports in pixels to try for the pools of a stand-in, one tuple for all of its pools.

    Pools that predict weights alone, and kinds without pools, leave nothing to try.
    """
    pools = list(getattr(stand_in, "pools", ()))
    if not pools or not all(isinstance(pool, GaussianPool | ContextPool2d) for pool in pools):
        return []
    learned = [pool for pool in pools if isinstance(pool, ContextPool2d)]
    starts = [sigma for sigma in _STARTS if all(pool.can_start_at(sigma, grid) for pool in learned)]
    return list(itertools.combinations(starts, len(pools)))


def set_supports(stand_in: Any, supports: Sequence[float], grid: tuple[int, int]) -> None:
    """Let each pool begin with a support of its own, in pixels, the same for all tokens."""
    for pool, sigma in zip(stand_in.pools, supports, strict=True):
        if isinstance(pool, GaussianPool):
            pool.start_at(sigma)
        else:
            pool.start_at(sigma, grid)
