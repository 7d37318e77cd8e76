"""What to search for, and how: one value, with the defaults of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..recipes.schema import Recipe, load_recipe

__all__ = ["SearchConfig", "recipe_source", "search_recipe"]


@dataclass(frozen=True)
class SearchConfig:
    """What to search for, and how. Defaults are those of the command line.

    Attributes:
        base: timm name of the base, with or without a pretrained tag.
        budget: share of the base's MACs (``"0.7x"``) or MACs (``"2.9G"``).
        recipe: path or name of the recipe that trains every candidate; None takes ``digits`` where no data set
            is named and ``default`` otherwise.
        dataset: data set in place of the recipe's, by timm's name.
        data_dir: folder of the data set in place of the recipe's.
        overrides: ``key=value`` texts that replace values of the recipe.
        model_kwargs: arguments of the base; None takes those of the recipe if it is a recipe for this base.
        pool_options: options of every pool, see :func:`cp_vision.insert_pools`.
        trials: candidates to try, the base included.
        output: folder for everything that is written.
        seed: seed of the sampler and of every training.
        sampler: ``tpe``, ``nsgaii`` or ``random``.
        val_fraction: share of the training split that is held out to compare candidates on.
        command: the command line, for the report.
    """

    base: str
    budget: str = "0.7x"
    recipe: str | None = None
    dataset: str | None = None
    data_dir: str | None = None
    overrides: tuple[str, ...] = ()
    model_kwargs: Mapping[str, Any] | None = None
    pool_options: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 30
    output: str | Path = "runs/search"
    seed: int = 0
    sampler: str = "tpe"
    val_fraction: float = 0.2
    command: str = ""


def recipe_source(config: SearchConfig) -> str:
    """Path or name of the recipe that the config asks for."""
    if config.recipe is not None:
        return config.recipe
    return "digits" if config.dataset in (None, "digits") and config.data_dir is None else "default"


def search_recipe(config: SearchConfig) -> Recipe:
    """The recipe that trains every candidate: what the config names, with the config's data and seed in it.

    Raises:
        UserError: a recipe that can't be used.
    """
    recipe = load_recipe(recipe_source(config), config.overrides)
    values: dict[str, Any] = {"seed": config.seed}
    if config.dataset is not None:
        values["dataset"] = config.dataset
    if config.data_dir is not None:
        values["data_dir"] = config.data_dir
    return recipe.with_values(**values)
