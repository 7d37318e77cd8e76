"""Shared weights for a search: what is trained, and what is drawn, from its space and budgets."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from cp_vision import Architecture

from ...context import SearchContext
from ...observer import Observer
from ...space.repair import BudgetRepair, Random
from ...space.space import POOL, Space
from ..train import TrainEvaluator
from .evaluator import SupernetEvaluator

__all__ = ["make_supernet", "smallest_choice"]


def make_supernet(context: SearchContext, observer: Observer) -> SupernetEvaluator:
    """Make the evaluator with shared weights, which are trained here, or read where they are ready.

    Args:
        context: the search.
        observer: is told how the training goes on.

    Raises:
        UserError: the output folder holds shared weights of another search.
        CommandError: they can't be trained or written.
    """
    evaluator = supernet_evaluator(context)
    told: list[int] = []

    def on_progress(done: float, epochs: int) -> None:
        if not told:
            told.append(epochs)
            observer.on_phase("shared weights", epochs)
        observer.on_part("shared weights", done)

    evaluator.prepare(on_progress)
    return evaluator


def supernet_evaluator(context: SearchContext) -> SupernetEvaluator:
    """The evaluator with nothing trained yet."""
    space, epochs = context.space, context.config.supernet_epochs
    repair, smallest = BudgetRepair(space), smallest_choice(space)
    pools = [name for name, values in space.choices().items() if POOL in values]

    def draw(rng: Random) -> Architecture:
        return space.architecture(repair.draw(rng) or smallest)

    recipe = context.recipe if epochs is None else context.recipe.with_values(epochs=epochs)
    whole, least = space.architecture(space.choice(pools=pools)), space.architecture(smallest)
    return SupernetEvaluator(TrainEvaluator.of(context), whole, least, draw, recipe)


def smallest_choice(space: Space) -> Mapping[str, Any]:
    """The choice that leaves out as much as may be, the costliest blocks first, and pools nowhere."""
    drops: list[str] = []
    for block in sorted((b for b in space.blocks if b.droppable), key=lambda b: -b.macs):
        found = space.constraints(space.choice(drops=[*drops, block.name]))
        if max(found.get("drops", 0.0), found.get("blocks", 0.0)) <= 0:
            drops.append(block.name)
    choice = space.choice(drops=drops)
    # Where the budget is met by strided pools alone, some of these are needed.
    return (BudgetRepair(space).draw(random.Random(0)) or choice) if space.excess(choice) > 0 else choice
