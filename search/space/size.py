"""How many candidates a space has."""

from __future__ import annotations

import math
from collections import Counter

from .space import DROP, POOL, Space

__all__ = ["count_candidates"]


def count_candidates(space: Space) -> int:
    """How many candidates there are, over the budget or not: no more pools and drops than a candidate may have.

    Those that are the same model are one candidate; see :meth:`Space.normal`.
    """
    # Ways to get so many pools and drops, over the sites so far, and whether the last that stays is pooled.
    ways: Counter[tuple[int, int, bool]] = Counter({(0, 0, False): 1})
    choices = space.choices()
    for name in space.names:
        longer: Counter[tuple[int, int, bool]] = Counter()
        for (pools, drops, pooled), number in ways.items():
            for value in choices[name]:
                after = pools + (value == POOL), drops + (value == DROP), pooled if value == DROP else value == POOL
                if after[0] <= _most(space.max_pools) and after[1] <= _most(space.max_drops):
                    longer[after] += number
        ways = longer
    plain = sum(number for (pools, *_), number in ways.items() if not pools)
    unseen = sum(number for (*_, pooled), number in ways.items() if pooled and space.by_token)
    modes = space.settings.get("mode", (space.base.pool_options.get("mode"),))
    with_pools = sum(ways.total() - plain - (0 if mode == "pre_attn" else unseen) for mode in modes)
    sizes, ranges = (len(space.settings.get(name, "1")) for name in ("img_size", "support_range"))
    return sizes * (plain + ranges * with_pools)


def _most(limit: int | None) -> float:
    return math.inf if limit is None else limit
