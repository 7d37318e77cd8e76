"""How many candidates a space has."""

from __future__ import annotations

import math
from collections import Counter

from .space import DROP, POOL, Space

__all__ = ["count_candidates"]


def count_candidates(space: Space) -> int:
    """How many candidates there are, over the budget or not: no more pools and drops than a candidate may have.

    What pools are like makes no difference where there are none.
    """
    # Ways to get so many pools and drops, over the sites so far.
    ways: Counter[tuple[int, int]] = Counter({(0, 0): 1})
    choices = space.choices()
    for name in space.names:
        longer: Counter[tuple[int, int]] = Counter()
        for (pools, drops), number in ways.items():
            for value in choices[name]:
                after = pools + (value == POOL), drops + (value == DROP)
                if after[0] <= _most(space.max_pools) and after[1] <= _most(space.max_drops):
                    longer[after] += number
        ways = longer
    settings = {name: len(values) for name, values in space.settings.items()}
    plain = sum(number for (pools, _), number in ways.items() if not pools)
    return plain * settings.get("img_size", 1) + (ways.total() - plain) * math.prod(settings.values())


def _most(limit: int | None) -> float:
    return math.inf if limit is None else limit
