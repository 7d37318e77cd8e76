"""The search space: for each block keep, pool or drop, and what each choice costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import torch

from cp_vision import Architecture, ContextPool2d, count_macs, find_sites, insert_pools, pool_macs
from cp_vision.cost import format_macs
from cp_vision.errors import UserError
from cp_vision.surgery import check_pool_options

from .results import BlockCost

__all__ = ["Choice", "Space", "measure_space"]

KEEP, POOL, DROP = "keep", "pool", "drop"
Choice = Mapping[str, str]
"""What becomes of each block, by name: ``"keep"``, ``"pool"`` (keep it and pool after it) or ``"drop"``."""


@dataclass(frozen=True)
class Space:
    """Blocks of a base with their costs, counted once; a candidate's cost is then a sum.

    Attributes:
        base: the base without pools and drops; its pool options are those of every candidate.
        base_macs: its cost in MACs.
        blocks: its blocks in order.
    """

    base: Architecture
    base_macs: int
    blocks: tuple[BlockCost, ...]

    @property
    def least_macs(self) -> int:
        """The least cost that can be reached: everything dropped that can be, one block kept at least."""
        droppable = [block.macs for block in self.blocks if block.droppable]
        least = self.base_macs - sum(droppable)
        return least if len(droppable) < len(self.blocks) else least + min(droppable)

    def check_budget(self, budget: int) -> None:
        """Raise a UserError that names the least reachable cost if no architecture keeps the budget."""
        if budget >= self.least_macs:
            return
        hint = "" if any(block.droppable for block in self.blocks) else "; none of its blocks may be dropped"
        raise UserError(
            f"budget of {format_macs(budget)} MACs can't be met: the least reachable cost of {self.base.base} "
            f"is {format_macs(self.least_macs)} ({self.least_macs / self.base_macs:.3f}x){hint}"
        )

    def choices(self, budget: int) -> dict[str, tuple[str, ...]]:
        """What may become of each block. A pool that alone would break the budget is no choice."""
        allowed = {}
        for block in self.blocks:
            choices = [KEEP]
            if self.least_macs + block.pool_macs <= budget:
                choices.append(POOL)
            if block.droppable:
                choices.append(DROP)
            allowed[block.name] = tuple(choices)
        return allowed

    def macs(self, choice: Choice) -> int:
        """Cost of a candidate in MACs: the base's, less the dropped blocks, plus the pools."""
        total = self.base_macs
        for block in self.blocks:
            if choice[block.name] == DROP:
                total -= block.macs
            elif choice[block.name] == POOL:
                total += block.pool_macs
        return total

    def excess(self, choice: Choice, budget: int) -> float:
        """How far a candidate is over the budget, as a share of it; above 0 means that it must not be built."""
        if all(value == DROP for value in choice.values()):
            return 1.0
        return self.macs(choice) / budget - 1

    def choice(self, pools: Iterable[str] = (), drops: Iterable[str] = ()) -> dict[str, str]:
        """The choice that pools and drops these blocks and keeps the others."""
        pools, drops = set(pools), set(drops)
        return {b.name: POOL if b.name in pools else DROP if b.name in drops else KEEP for b in self.blocks}

    def architecture(self, choice: Choice) -> Architecture:
        """The architecture of a choice."""
        pools = tuple(name for name, value in choice.items() if value == POOL)
        drops = tuple(name for name, value in choice.items() if value == DROP)
        return Architecture(self.base.base, pools, drops, self.base.pool_options, self.base.model_args)


def measure_space(base: Architecture, input_size: tuple[int, int, int]) -> Space:
    """Count the cost of every block and pool of a base.

    Args:
        base: the base, without pools and drops.
        input_size: (channels, height, width) of the images.

    Raises:
        UserError: a base that is unknown or not supported, or wrong pool options.
    """
    with torch.device("meta"):
        model = base.build()
    try:
        sites = [site for site in find_sites(model, input_size) if site.kind == "block"]
    except RuntimeError as error:
        raise UserError(f"{base.base}: {error}") from error
    if not sites:
        raise UserError(f"{base.base} has no blocks with {dict(base.model_args)}; take a deeper one")
    base_macs = count_macs(model, input_size)
    check_pool_options(base.pool_options)
    with torch.device("meta"):
        insert_pools(model, [site.name for site in sites], **base.pool_options)
    blocks = []
    for site in sites:
        pool = cast(ContextPool2d, model.get_submodule(f"{site.name}.context_pool"))
        blocks.append(BlockCost(site.name, site.macs, pool_macs(pool, site.grid), site.droppable))
    return Space(base, base_macs, tuple(blocks))
