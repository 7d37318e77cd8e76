"""The recipe that a config asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cp_vision.shared.errors import UserError

from .paths import whole_paths
from .space_options import load_space_options

if TYPE_CHECKING:
    from ...recipes.recipe.keys import Recipe
    from .schema import SearchConfig

__all__ = ["recipe_source", "search_recipe"]


def recipe_source(config: SearchConfig) -> str:
    """Path or name of the recipe that the config asks for."""
    if config.recipe is not None:
        return str(config.recipe)
    return "digits" if config.dataset in (None, "digits") and config.data_dir is None else "default"


def search_recipe(config: SearchConfig) -> Recipe:
    """The recipe that trains every candidate: what the config names, with the config's data and seed in it.

    Raises:
        UserError: a recipe that can't be used.
    """
    from ...recipes.recipe.keys import load_recipe

    recipe = load_recipe(recipe_source(config), config.overrides)
    if recipe.log_wandb:
        raise UserError("log_wandb is for cp-train: a search's record is its study; --set log_wandb=false")
    values = {**whole_paths(recipe), "data_dir": recipe.data_dir, "seed": config.seed}
    if config.dataset is not None:
        values["dataset"] = config.dataset
    if config.data_dir is not None:
        values["data_dir"] = config.data_dir
    if config.weights is not None:
        pretrained = config.weights == "pretrained"
        values |= {"pretrained": pretrained, "initial_checkpoint": None if pretrained else config.weights}
    sizes = load_space_options(config.space).img_size
    if sizes:
        values["img_size"] = sizes[0]
    return recipe.with_values(**values)
