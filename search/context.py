"""A search that is set up and checked, with nothing written: recipe, data, base, space and budgets."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models import split_model_name_tag

from cp_vision import Architecture
from cp_vision.models.build import check_base
from cp_vision.shared.errors import UserError
from cp_vision.shared.files import check_path

from ..recipes.data.open import count_classes, hold_out, open_splits
from ..recipes.models import data_config, model_args
from ..recipes.processes import single_process
from .config.recipe import recipe_source, search_recipe
from .config.schema import SearchConfig
from .config.space_options import load_space_options
from .evaluators.train import TrainEvaluator
from .space.budget import check_reachable, measures_of, parse_budgets
from .space.cost_model import measure_space
from .space.space import Space
from .study.database import StudyDatabase

__all__ = ["SearchContext"]


class SearchContext:
    """Everything that a search needs, checked, with nothing written.

    Args:
        config: what to search for.

    Attributes:
        recipe: trains every candidate.
        trainer: does it.
        test_set: what the winner and the baselines are scored on at the end.
        input_size: (channels, height, width) of the base's images in pixels.
        space: the space, with its budgets.
        place: where the study is kept.

    Raises:
        UserError: anything in the config that can't be used.
    """

    def __init__(self, config: SearchConfig) -> None:
        self.config, self.output = config, Path(config.output)
        measures = measures_of(config.budget_text)
        check_base(config.base)
        choices = load_space_options(config.space)
        self.recipe = search_recipe(config)
        self.place = StudyDatabase(self.output, config.storage)
        check_path(self.output)
        held = self.place.held()
        whole, self.test_set = open_splits(self.recipe)
        train_set, self.held_out = hold_out(whole, config.val_fraction)
        num_classes = count_classes(whole, self.recipe)
        base = _base(config, self.recipe, num_classes)
        with torch.device("meta"):
            self.input_size = data_config(base.build(), self.recipe)["input_size"]
        self._measure = partial(measure_space, base, self.input_size, choices, ("macs", *measures), config.compiled)
        self.space = self._budgeted((held[0] if held else {}).get("latency"))
        self.trainer = TrainEvaluator(
            self.recipe,
            train_set,
            self.held_out,
            num_classes,
            self.output.absolute(),
            single_process(),
            config.trial_seconds,
        )
        has_weights = self.recipe.pretrained or self.recipe.initial_checkpoint is not None
        if config.evaluator == "sensitivity" and not has_weights:
            raise UserError(
                "evaluator sensitivity trains nothing, so the base needs weights: --set pretrained=true, or "
                "--set initial_checkpoint=FILE"
            )
        if config.evaluator == "supernet" and self.space.settings:
            raise UserError(
                f"evaluator supernet shares weights that are trained for one {next(iter(self.space.settings))}; name "
                "one in the space, or take the evaluator train"
            )
        self.place.check(self.settings)

    def _budgeted(self, latency: dict[str, Any] | None) -> Space:
        """The space with its budgets; latencies that are known are not measured."""
        space = self._measure(latency)
        space = dataclasses.replace(space, limits=parse_budgets(self.config.budget_text, space.base_costs))
        check_reachable(space)
        if self.config.trials == 1 and space.excess(space.choice()) > 0 and self.config.evaluator != "sensitivity":
            raise UserError("trials 1 is the base alone, which is over the budget; try 2 or more")
        return space

    def take_latencies(self) -> None:
        """Take the study's latencies in place of our own: another process may have begun it since we looked."""
        held = self.place.held()
        latency = held[0].get("latency") if held else None
        if latency and latency != json.loads(json.dumps(self.latency_table)):
            self.space = self._budgeted(latency)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that a candidate's score and the order of proposals depend on."""
        # What changes no result, or stands here in another form.
        other = {"model", "model_kwargs", "workers", "dataset_download", "validation_batch_size", "data_dir", "seed"}
        other |= {"log_interval", "recovery_interval", "val_interval", "eval_metric"}
        recipe, config, space = self.recipe.model_dump(mode="json", exclude=other), self.config, self.space
        budgets = {
            f"budget in {'MACs' if limit.measure == 'macs' else limit.measure}": limit.most for limit in space.limits
        }
        chosen = {block.name: [block.poolable, block.droppable] for block in space.blocks}
        return {
            "base": config.base,
            **budgets,
            "data folder": str(Path(self.recipe.data_dir).resolve()) if self.recipe.data_dir else None,
            "early stopping": config.early_stop,
            "evaluator": config.evaluator,
            "keep accuracy": config.keep_accuracy,
            "number of images": [len(self.trainer.train_set), len(self.held_out), len(self.test_set)],
            "objective": config.objective,
            "pool options": dict(space.base.pool_options),
            "sampler": config.sampler,
            "seed": config.seed,
            "space": {"sites": chosen, **space.settings, "max pools": space.max_pools, "max drops": space.max_drops},
            "supernet epochs": config.supernet_epochs if config.evaluator == "supernet" else None,
            "validation fraction": config.val_fraction,
            **{f"model argument {key}": value for key, value in space.base.model_args.items()},
            **{f"recipe value {key}": value for key, value in recipe.items()},
        }

    @property
    def latency_table(self) -> dict[str, Any]:
        """The latencies in milliseconds that were measured, so that a search that goes on has the same."""
        return {
            repr(values): dataclasses.asdict(costs["latency"])
            for values, costs in self.space.costs.items()
            if "latency" in costs
        }

    @property
    def recipe_name(self) -> str:
        """Name of the recipe, for people."""
        return Path(recipe_source(self.config)).stem


def _base(config: SearchConfig, recipe: Any, num_classes: int) -> Architecture:
    kwargs = config.model_kwargs
    if kwargs is None:
        own = recipe.model.removeprefix("cp_") == split_model_name_tag(config.base)[0]
        kwargs = recipe.model_kwargs if own else {}
    # Where the bare recipe's model pools or drops is no argument of the base's.
    kwargs = {key: value for key, value in kwargs.items() if key not in ("pools", "drops", "pool_options")}
    args = model_args(config.base, recipe, num_classes, kwargs)
    return Architecture(config.base, pool_options=config.pool_options, model_args=args)
