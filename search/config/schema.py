"""What to search for, and how: one value, with the defaults of the command line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cp_vision.shared.errors import UserError, closest

from ...recipes.recipe.keys import Recipe, load_recipe
from .paths import whole_paths
from .space_options import SpaceOptions, load_space_options

__all__ = [
    "CONFIG_FILE",
    "EVALUATORS",
    "EXECUTORS",
    "OBJECTIVES",
    "SAMPLERS",
    "STOPPERS",
    "SearchConfig",
    "recipe_source",
    "search_recipe",
]

CONFIG_FILE = "search.json"
EVALUATORS = ("train", "supernet", "sensitivity")
EXECUTORS = ("local", "ray")
SAMPLERS = ("surrogate", "bruteforce", "gp", "nsgaii", "nsgaiii", "random", "tpe")
STOPPERS = ("halving", "hyperband", "median", "none")
OBJECTIVES = ("pareto", "single")
_NAMES = {"evaluator": EVALUATORS, "executor": EXECUTORS, "objective": OBJECTIVES, "sampler": SAMPLERS}
_NAMES |= {"early_stop": STOPPERS}
# Keys of a recipe that a search doesn't take from it.
_DECIDED = {"model": "the base", "seed": "what --seed says"}


@dataclass(frozen=True)
class SearchConfig:
    """What to search for, and how. Defaults are those of the command line.

    Attributes:
        base: timm name of the base, with or without a pretrained tag.
        budget: budgets, separated by commas: a share of the base's MACs (``"0.7x"``) or MACs (``"2.9G"``);
            ``"params=12M"``, ``"latency=15ms"``. None is 0.7x, or 1x where an accuracy is to be kept.
        keep_accuracy: look for the cheapest within so many percent points of the base's accuracy, in place of the
            most accurate.
        space: what may be chosen: a YAML file, a mapping of its keys, or a :class:`SpaceOptions`; None is the default.
        evaluator: ``train`` (each candidate by the recipe), ``supernet`` (shared weights, then the finalists by the
            recipe) or ``sensitivity`` (no training: what the base loses without each block).
        recipe: path or name of the recipe that trains every candidate; None takes ``digits`` where no data set
            is named and ``default`` otherwise.
        dataset: data set in place of the recipe's, by timm's name.
        data_dir: folder of the data set in place of the recipe's.
        overrides: ``key=value`` texts that replace values of the recipe.
        model_kwargs: arguments of the base; None takes those of the recipe if it is a recipe for this base.
        pool_options: options of every pool, see :func:`cp_vision.insert_pools`.
        trials: candidates to try, the base included.
        output: folder for everything that is written.
        storage: where the study is kept: None is a SQLite file in the output folder; ``journal:PATH``, or the address
            of a database as SQLAlchemy writes it.
        seed: seed of the sampler and of every training.
        sampler: ``surrogate``, or one of Optuna's by name, such as ``tpe``, ``nsgaii``, ``random``.
        objective: ``pareto`` (accuracy and cost) or ``single`` (accuracy within the budget).
        early_stop: how candidates that are among the worse are stopped: ``halving``, ``hyperband``, ``median``,
            ``none``. Under Ray ``halving`` and ``hyperband`` are its asynchronous forms.
        trial_seconds: the longest that a candidate may train, in seconds; None for no limit.
        val_fraction: share of the training split, above 0 and below 1, that is held out to compare candidates on.
        supernet_epochs: epochs of training shared weights; None is those of the recipe.
        finalists: how many candidates are trained after shared weights scored all, beside the baselines.
        compiled: latency, as a budget and in the report, is that of what torch.compile makes.
        keep_checkpoints: of how many members of the front the weights are kept, beside winner and baselines.
        executor: ``local`` (this process, and others that run the same command) or ``ray``.
        parallel: candidates at a time under Ray; None is as many as there are resources.
        address: of a Ray cluster; None starts one on this machine.
        cpus: processors of a candidate under Ray; parts of one are allowed.
        gpus: graphics processors of a candidate under Ray; parts of one are allowed.
        command: the command line, for the report.

    Source: Li et al., 2018, arXiv 1810.05934 (``halving``), and 2016, arXiv 1603.06560 (``hyperband``); Guo et al.,
    ECCV 2020, arXiv 1904.00420, and Yu, Huang, ICCV 2019, arXiv 1903.05134 (``supernet``); Baptista and Poloczek,
    ICML 2018, arXiv 1806.08838 (the model behind ``surrogate``; what it proposes by is ours).
    """

    base: str
    budget: str | None = None
    keep_accuracy: float | None = None
    space: str | Path | Mapping[str, Any] | SpaceOptions | None = None
    evaluator: str = "train"
    recipe: str | None = None
    dataset: str | None = None
    data_dir: str | None = None
    overrides: tuple[str, ...] = ()
    model_kwargs: Mapping[str, Any] | None = None
    pool_options: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 30
    output: str | Path = "runs/search"
    storage: str | None = None
    seed: int = 0
    sampler: str = SAMPLERS[0]
    objective: str = "pareto"
    early_stop: str = "halving"
    trial_seconds: float | None = None
    val_fraction: float = 0.2
    supernet_epochs: int | None = None
    finalists: int = 4
    compiled: bool = False
    keep_checkpoints: int = 8
    executor: str = "local"
    parallel: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("data_dir", "recipe"):
            if isinstance(value := getattr(self, name), Path):
                object.__setattr__(self, name, str(value))

    @property
    def candidates(self) -> int:
        """How many candidates are tried, the base included: without trainings the base alone."""
        return 1 if self.evaluator == "sensitivity" else self.trials

    @property
    def budget_text(self) -> str:
        """The budgets, with the default filled in."""
        return self.budget if self.budget is not None else "0.7x" if self.keep_accuracy is None else "1x"

    def check(self) -> None:
        """Raise a UserError that names the first value that is of another type or out of its range."""
        self._check_types()
        for name, allowed in _NAMES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(f"{name} {value!r} is not one of {', '.join(allowed)}{closest(value, allowed)}")
        least = {"trials": 1, "supernet_epochs": 1, "finalists": 1, "keep_checkpoints": 0, "parallel": 1, "cpus": 0}
        least |= {"gpus": 0, "keep_accuracy": 0}
        for name, low in least.items():
            value = getattr(self, name)
            # "Not at least", so that a number that is none is refused too.
            if value is not None and not low <= value < math.inf:
                raise UserError(f"{name} {value} must be {low} or more{'' if value < low else ', and finite'}")
        if self.trial_seconds is not None and not self.trial_seconds > 0:
            raise UserError(f"trial_seconds {self.trial_seconds} must be above 0")
        if self.supernet_epochs is not None and self.evaluator != "supernet":
            raise UserError(
                f"supernet_epochs {self.supernet_epochs} needs the evaluator supernet, not {self.evaluator}"
            )
        if self.finalists != SearchConfig.finalists and self.evaluator != "supernet":
            raise UserError(f"finalists {self.finalists} needs the evaluator supernet, not {self.evaluator}")
        for override in self.overrides:
            key = override.partition("=")[0]
            if key in _DECIDED:
                raise UserError(f"--set {override!r}: in a search that is {_DECIDED[key]}")
        for key in sorted({"pools", "drops", "pool_options"}.intersection(self.model_kwargs or {})):
            raise UserError(f"model_kwargs {key}: the search decides that; see --space and --pool-kwargs")
        if self.executor == "local":
            for name, without in (("parallel", None), ("address", None), ("cpus", 1), ("gpus", 0)):
                if getattr(self, name) != without:
                    raise UserError(
                        f"{name} {getattr(self, name)!r} needs the executor ray; with local, start the same command "
                        "several times and they share the work"
                    )

    def _check_types(self) -> None:
        whole = ("trials", "seed", "supernet_epochs", "finalists", "keep_checkpoints", "parallel")
        numbers = ("keep_accuracy", "trial_seconds", "val_fraction", "cpus", "gpus")
        texts: tuple[str, ...] = ("base", "budget", "evaluator", "dataset", "storage", "sampler", "objective")
        texts += ("early_stop", "executor", "address", "command")
        kinds: tuple[tuple[tuple[str, ...], Any, str], ...] = (
            (whole, int, "a whole number"),
            (numbers, int | float, "a number"),
            (texts, str, "text"),
            (("overrides",), list | tuple, "a list of texts such as 'epochs=5'"),
            (("model_kwargs", "pool_options"), Mapping, "a mapping"),
            (("output", "data_dir", "recipe"), str | Path, "a path"),
        )
        optional = {item.name for item in dataclasses.fields(self) if item.default is None}
        for names, kind, said in kinds:
            for name in names:
                value = getattr(self, name)
                if value is None and name in optional:
                    continue
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise UserError(f"{name} {value!r} must be {said}")
        if not str(self.output):
            raise UserError("output '' must be a path")


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
    values = {**whole_paths(recipe), "data_dir": recipe.data_dir, "seed": config.seed}
    if config.dataset is not None:
        values["dataset"] = config.dataset
    if config.data_dir is not None:
        values["data_dir"] = config.data_dir
    sizes = load_space_options(config.space).img_size
    if sizes:
        values["img_size"] = sizes[0]
    return recipe.with_values(**values)
