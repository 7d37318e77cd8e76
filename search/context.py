"""A search that is set up and checked, with nothing written and no study opened: recipe, data, base, space, budgets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from timm.models import split_model_name_tag

from cp_vision import Architecture
from cp_vision.models.build import check_base
from cp_vision.shared.errors import UserError
from cp_vision.shared.on_meta import on_meta

from ..recipes.data.open import count_classes, fingerprint_of, found_in, hold_out, open_splits
from ..recipes.evaluation.numbering import open_as_stored
from ..recipes.models import data_config, label_names, model_args
from ..recipes.recipe.keys import Recipe
from .config.paths import whole_path
from .config.recipe import recipe_source, search_recipe
from .config.schema import CHANGES, SearchConfig
from .config.space_options import load_space_options
from .space.budget import check_reachable, measures_of, parse_budgets
from .space.cost_model import measure_space
from .space.space import Space
from .study.contents import StudyContents
from .types import Limit

__all__ = ["SearchContext", "base_architecture", "base_kwargs", "kwargs_left_out"]

# Values of the config that decide results as they stand there.
_DECIDING = ("base", "early_stop", "evaluator", "keep_accuracy", "objective", "sampler", "seed", "val_fraction")


class SearchContext:
    """Everything that trains and scores candidates needs, checked; workers on other machines make their own.

    Args:
        config: what to search for.
        recipe: what trains every candidate; None is what the config names.
        known: the space of an earlier run of the same search, whose latencies are taken in place of measuring.

    Attributes:
        recipe: trains every candidate.
        train_set: images to train candidates on.
        held_out: images to compare candidates on.
        test_set: what the winner and the baselines are scored on at the end.
        found: what was found in the data set, on one line.
        data: what tells its images and classes from others, wherever they lie.
        num_classes: number of classes.
        input_size: (channels, height, width) of the base's images in pixels.
        space: the space, with its budgets.

    Raises:
        UserError: anything in the config that can't be used.
    """

    def __init__(self, config: SearchConfig, recipe: Recipe | None = None, known: Space | None = None) -> None:
        self.config, self.output = config, Path(config.output)
        measures = measures_of(config.budget_text)
        check_base(config.base)
        options = load_space_options(config.space)
        self.recipe = search_recipe(config) if recipe is None else recipe
        # What trains nothing takes the base's head as it is.
        opened = open_as_stored if config.evaluator == "sensitivity" else open_splits
        whole, self.test_set = opened(self.recipe)
        self.found = found_in(whole, self.test_set, (self.recipe.train_split, self.recipe.val_split))
        self.data = fingerprint_of(whole, self.test_set)
        self.train_set, self.held_out = hold_out(whole, config.val_fraction)
        self.num_classes = count_classes(whole, self.recipe)
        base = base_architecture(config, self.recipe, self.num_classes)
        with on_meta():
            self.input_size: tuple[int, int, int] = data_config(base.build(), self.recipe)["input_size"]
        space = measure_space(base, self.input_size, options, ("macs", *measures), config.compiled, known)
        self.space = dataclasses.replace(space, limits=parse_budgets(config.budget_text, space.base_costs))
        check_reachable(self.space)
        self._check_evaluator()

    def _check_evaluator(self) -> None:
        config, recipe, space = self.config, self.recipe, self.space
        if config.evaluator == "fit":
            raise UserError(
                "evaluator fit has no trials: cp-search runs it, and from Python cp_vision.search.compress; take the "
                "evaluator train to train candidates from weights"
            )
        if config.trials == 1 and space.excess(space.choice()) > 0 and config.evaluator != "sensitivity":
            raise UserError("trials 1 is the base alone, which is over the budget; try 2 or more")
        if config.evaluator == "sensitivity" and not recipe.pretrained and recipe.initial_checkpoint is None:
            raise UserError(
                "evaluator sensitivity trains nothing, so the base needs weights: --set pretrained=true, or "
                "--set initial_checkpoint=FILE"
            )
        if config.evaluator == "supernet" and space.settings:
            raise UserError(
                f"evaluator supernet shares weights that are trained for one {next(iter(space.settings))}; name "
                "one in the space, or take the evaluator train"
            )

    def contents(self) -> StudyContents:
        """What the study holds of this search: what decides results, and what it takes to show them."""
        config, space, recipe = self.config, self.space, self.recipe
        chosen = {block.name: [block.poolable, block.droppable] for block in space.blocks}
        images = [len(self.train_set), len(self.held_out), len(self.test_set)]
        settings: dict[str, Any] = {
            **{name: getattr(config, name) for name in _DECIDING},
            "images": images,
            "data": self.data,
            # Another run on the same device measures other latencies, and takes those of the study.
            "limits": dict(_limit(limit) for limit in space.limits),
            "model_args": dict(space.base.model_args),
            "pool_options": dict(space.base.pool_options),
            "space": {"sites": chosen, **space.settings, "max pools": space.max_pools, "max drops": space.max_drops},
            "supernet_epochs": config.supernet_epochs if config.evaluator == "supernet" else None,
        }
        source, values = Path(recipe_source(config)), recipe.model_dump(mode="json")
        return StudyContents(
            settings,
            # Whoever reads it may be in another folder.
            {key: whole_path(key, value) for key, value in values.items()},
            str(source.resolve()) if source.is_file() else str(source),
            space,
            {
                "dataset": recipe.dataset or recipe.data_dir or "",
                "classes": label_names(self.train_set.classes or {}),
                "images": images,
                "input_size": list(self.input_size),
            },
        )


def base_kwargs(config: SearchConfig, recipe: Recipe) -> dict[str, Any]:
    """The base's arguments from the config, or of the recipe where that is of the same model."""
    kwargs = config.model_kwargs
    if kwargs is None:
        kwargs = recipe.model_kwargs if _is_for(recipe, config.base) else {}
    # Where the bare recipe's model pools, drops or replaces is no argument of the base's.
    return {key: value for key, value in kwargs.items() if key not in CHANGES}


def _limit(limit: Limit) -> tuple[str, Any]:
    name = "MACs" if limit.measure == "macs" else limit.measure
    return name, limit.text if limit.measure == "latency" else limit.most


def base_architecture(config: SearchConfig, recipe: Recipe, num_classes: int) -> Architecture:
    """The base of a search, with the arguments that config, recipe and data give it.

    Raises:
        UserError: an argument that it doesn't take.
    """
    args = model_args(config.base, recipe, num_classes, base_kwargs(config, recipe))
    return Architecture(config.base, pool_options=config.pool_options, model_args=args)


def _is_for(recipe: Recipe, base: str) -> bool:
    """Whether a recipe is one for this base."""
    return recipe.model.removeprefix("cp_") == split_model_name_tag(base)[0]


def kwargs_left_out(config: SearchConfig, recipe: Recipe) -> dict[str, Any]:
    """Model arguments of a recipe that a search leaves out since the recipe is for another base."""
    if config.model_kwargs is not None or _is_for(recipe, config.base):
        return {}
    return {key: value for key, value in recipe.model_kwargs.items() if key not in CHANGES}
