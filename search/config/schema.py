"""What to search for, and how. The command line, the YAML file, ``search.json`` and the table in the docs come from it.

A new option is a new field here, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, field_validator

from cp_vision.shared.errors import UserError

from .budget_text import read_budgets
from .checked import CheckedModel
from .space_options import SpaceOptions, load_space_options

__all__ = ["CHANGES", "CONFIG_FILE", "SAMPLERS", "Option", "SearchConfig"]

CONFIG_FILE = "search.json"
SAMPLERS = ("surrogate", "bruteforce", "gp", "nsgaii", "nsgaiii", "random", "tpe")
# Arguments of a ``cp_*`` model beside those of its base.
CHANGES = ("drops", "pool_options", "pools", "replace_options", "replaces")
# Keys of a recipe that a search doesn't take from it.
_DECIDED = {"model": "the base", "seed": "what --seed says"}

WHAT, DATA, HOW, WHERE = "what to look for", "data and training", "how to search", "where"


@dataclass(frozen=True)
class Option:
    """How a field stands on the command line.

    Attributes:
        group: heading that it stands under.
        metavar: what stands for its value in the help.
        flag: name of the option, where it isn't the field's.
    """

    group: str
    metavar: str | None = None
    flag: str | None = None


def _path(value: Any) -> str:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("must be a path")
    return str(value)


def _override(text: str) -> str:
    key = text.partition("=")[0].strip()
    if key in _DECIDED:
        raise ValueError(f"can't be set: in a search that is {_DECIDED[key]}")
    return text


_PathText = Annotated[str | Path, PlainValidator(_path)]
_Space = Annotated[SpaceOptions | Mapping[str, Any] | str | Path | None, PlainValidator(load_space_options)]
_Override = Annotated[str, AfterValidator(_override)]


class SearchConfig(CheckedModel):
    """What to search for, and how; each field is an option of ``cp-search`` and described in its help.

    ``command`` alone is none: it is the command line, for the report.

    Raises:
        UserError: the first value that is of another type, out of its range, or needs what another field isn't.

    Source: Li et al., 2018, arXiv 1810.05934 (``halving``), and 2016, arXiv 1603.06560 (``hyperband``); Guo et al.,
    ECCV 2020, arXiv 1904.00420, and Yu, Huang, ICCV 2019, arXiv 1903.05134 (``supernet``); Emmerich et al., 2006, and
    Gardner et al., ICML 2014 (``surrogate``).
    """

    # A field that needs another one stands below it: validators see those above.
    base: str = Field(min_length=1, description="timm name of the base, such as resnet50 or vit_small_patch16_224")

    budget: Annotated[str | None, Option(WHAT, "BUDGETS")] = Field(
        default=None,
        description="separated by commas: a share of the base's MACs (0.7x) or MACs (2.9G); params=12M; latency=15ms. "
        "Default 0.7x, or 1x where an accuracy is to be kept",
    )
    keep_accuracy: Annotated[float | None, Option(WHAT, "POINTS")] = Field(
        default=None,
        ge=0,
        description="the cheapest within so many percent points of the base, in place of the most accurate",
    )
    space: Annotated[_Space, Option(WHAT, "FILE")] = Field(
        default=SpaceOptions(), description="YAML file of what may be chosen, or its keys; default suits the base"
    )
    pool_options: Annotated[Mapping[str, Any], Option(WHAT, flag="--pool-kwargs")] = Field(
        default={}, description="options of every pool (mode, support_range)"
    )
    model_kwargs: Annotated[Mapping[str, Any] | None, Option(WHAT)] = Field(
        default=None, description="arguments of the base; default the recipe's, if it is a recipe for this base"
    )

    dataset: Annotated[str | None, Option(DATA)] = Field(
        default=None, description="data set by timm's name (torch/cifar10); default the recipe's"
    )
    data_dir: Annotated[_PathText | None, Option(DATA)] = Field(
        default=None, description="folder of the data set; alone: an image folder with train/ and val/"
    )
    recipe: Annotated[_PathText | None, Option(DATA)] = Field(
        default=None,
        description="recipe file or bundled name that trains every candidate; default digits, or default with other "
        "data",
    )
    weights: Annotated[str | None, Option(DATA, "FILE")] = Field(
        default=None,
        min_length=1,
        description="trained weights of the base: a .safetensors or .pth file, a local-dir: folder or hf-hub: name of "
        "the same architecture, or the word pretrained for those of its name; default none, and the evaluator fit "
        "trains the base by the recipe first",
    )
    overrides: Annotated[tuple[_Override, ...], Field(strict=False), Option(DATA, "KEY=VALUE", "--set")] = Field(
        default=(), description="replace a recipe's value; may be given several times"
    )
    val_fraction: Annotated[float, Option(DATA, "SHARE")] = Field(
        default=0.2, gt=0, lt=1, description="share of the training split held out to compare candidates on"
    )

    trials: Annotated[int, Option(HOW, "N")] = Field(
        default=30, ge=1, description="candidates to try, the base included"
    )
    evaluator: Annotated[Literal["train", "fit", "supernet", "sensitivity"], Option(HOW)] = Field(
        default_factory=lambda values: "fit" if values.get("weights") else "train",
        validate_default=True,
        description="what scores candidates: trainings by the recipe; fitted stand-ins for blocks against the trained "
        "base, without training; shared weights and then trainings of the finalists; or the base without each block. "
        "Default fit where there are --weights, else train",
    )
    fit_images: Annotated[int, Option(HOW, "N")] = Field(
        default=512, ge=16, description="unlabelled training images that stand-ins are fitted to"
    )
    refit_images: Annotated[int, Option(HOW, "N")] = Field(
        default=0,
        ge=0,
        description="training images that the chosen stand-ins are fitted to once more, front to back; default those "
        "of --fit-images",
    )
    distil_epochs: Annotated[int, Option(HOW, "N")] = Field(
        default=0, ge=0, description="epochs of distilling what stand-ins gave from the base, over the same images"
    )
    scores: Annotated[str | None, Option(HOW, "NAME")] = Field(
        default=None,
        min_length=1,
        description="of an earlier search of this base, by which stand-ins are chosen before any is fitted: its "
        "folder, its scores.json, or a name of those that come with the package (cp-search solve lists them); default "
        "this search's own",
    )
    sampler: Annotated[str, Option(HOW)] = Field(
        default="surrogate", description=f"what proposes candidates: {', '.join(SAMPLERS)}"
    )
    objective: Annotated[Literal["single", "pareto"], Option(HOW)] = Field(
        default="single", description="the best accuracy within the budget, or a whole front of accuracy and cost"
    )
    early_stop: Annotated[Literal["halving", "hyperband", "median", "none"] | None, Option(HOW)] = Field(
        default=None,
        description="how candidates are stopped that are among the worse of their cost; default halving where they "
        "train 30 epochs or more, else none",
    )
    trial_seconds: Annotated[float | None, Option(HOW, "S")] = Field(
        default=None, gt=0, description="the longest that a candidate may train; default no limit"
    )
    supernet_epochs: Annotated[int | None, Option(HOW, "N")] = Field(
        default=None, ge=1, description="epochs of training shared weights; default the recipe's"
    )
    finalists: Annotated[int, Option(HOW, "N")] = Field(
        default=3,
        ge=1,
        description="candidates that are trained with further seeds before one of them wins, beside the base and their "
        "counterparts without pools",
    )
    seeds: Annotated[int, Option(HOW, "N")] = Field(
        default=3, ge=1, lt=100, description="trainings of each finalist and baseline, with different seeds"
    )
    compiled: Annotated[bool, Option(HOW)] = Field(
        default=False, description="latencies are those of what torch.compile makes"
    )
    seed: Annotated[int, Option(HOW, "N")] = Field(
        default=0, ge=0, lt=2**32, description="seed of sampler and trainings"
    )

    output: Annotated[_PathText, Option(WHERE)] = Field(
        default="runs/search", description="folder to write; default on the command line runs/BASE-DATA"
    )
    storage: Annotated[str | None, Option(WHERE, "ADDRESS")] = Field(
        default=None,
        description="of the study: journal:PATH, or a database as SQLAlchemy writes it; default a file in the output",
    )
    study: Annotated[str | None, Option(WHERE, "NAME")] = Field(
        default=None,
        min_length=1,
        description="name of the study in a shared --storage; default made from the output folder",
    )
    keep_checkpoints: Annotated[int, Option(WHERE, "N")] = Field(
        default=8, ge=0, description="members of the front whose weights are kept, beside winner and baselines"
    )
    executor: Annotated[Literal["local", "ray"], Option(WHERE)] = Field(
        default="local", description="this process and others that run the same command, or Ray"
    )
    parallel: Annotated[int | None, Option(WHERE, "N")] = Field(
        default=None, ge=1, description="candidates, or workers that fit, at a time under Ray; default as many as fit"
    )
    address: Annotated[str | None, Option(WHERE)] = Field(
        default=None, description="of a Ray cluster; default one on this machine"
    )
    cpus: Annotated[float, Option(WHERE, "NUMBER")] = Field(
        default=1.0, ge=0, description="processors of a candidate under Ray; parts of one are allowed"
    )
    gpus: Annotated[float, Option(WHERE, "NUMBER")] = Field(
        default=0.0, ge=0, description="GPUs of a candidate under Ray; parts of one are allowed"
    )
    resources: Annotated[Mapping[str, Annotated[float, Field(gt=0)]], Option(WHERE, "NAME=NUMBER")] = Field(
        default={}, description="custom resources of a candidate under Ray, beside cpus and gpus"
    )

    command: str = Field("", description="the command line, for the report")

    @property
    def candidates(self) -> int:
        """How many candidates are tried, the base included: without trainings the base alone."""
        return 1 if self.evaluator == "sensitivity" else self.trials

    @property
    def further_seeds(self) -> tuple[int, ...]:
        """The seeds that finalists are trained with after all candidates were scored."""
        if self.evaluator == "sensitivity":
            return ()
        return tuple((self.seed + i) % 2**32 for i in range(self.evaluator == "train", self.seeds))

    @property
    def budget_text(self) -> str:
        """The budgets, with the default filled in."""
        return self.budget if self.budget is not None else "0.7x" if self.keep_accuracy is None else "1x"

    @field_validator("budget")
    @classmethod
    def _readable(cls, budget: str | None) -> str | None:
        if budget is not None:
            read_budgets(budget, sweep=True)
        return budget

    @field_validator("model_kwargs")
    @classmethod
    def _not_decided(cls, kwargs: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        for key in sorted(set(CHANGES).intersection(kwargs or {})):
            raise UserError(f"model_kwargs {key}: the search decides that; see --space and --pool-kwargs")
        return kwargs

    @field_validator("evaluator")
    @classmethod
    def _of_trained(cls, value: str, info: ValidationInfo) -> str:
        if value != "fit" and info.data.get("budget") is not None:
            # Several of a measure are for models of their own, which searches that train don't give.
            read_budgets(info.data["budget"])
        if value == "fit":
            if info.data.get("trials") != cls.model_fields["trials"].default:
                raise ValueError("has no trials: leave them out, or take the evaluator train")
            if info.data.get("keep_accuracy") is not None:
                raise ValueError("takes budgets; an accuracy to keep needs the evaluator train")
        return value

    @field_validator("fit_images", "refit_images", "distil_epochs", "scores")
    @classmethod
    def _of_fit(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("evaluator") != "fit" and value != cls._default(info):
            raise ValueError(f"needs the evaluator fit, not {info.data.get('evaluator')}")
        return value

    @field_validator(
        *("sampler", "objective", "early_stop", "trial_seconds", "finalists", "seeds", "compiled"),
        *("storage", "keep_checkpoints"),
    )
    @classmethod
    def _not_of_fit(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("evaluator") == "fit" and value != cls._default(info):
            raise ValueError(
                "is of searches that train; with the evaluator fit leave it out, or take --evaluator train"
            )
        return value

    @field_validator("supernet_epochs")
    @classmethod
    def _of_supernet(cls, value: int | None, info: ValidationInfo) -> int | None:
        if info.data.get("evaluator") != "supernet" and value != cls._default(info):
            raise ValueError(f"needs the evaluator supernet, not {info.data.get('evaluator')}")
        return value

    @field_validator("study")
    @classmethod
    def _of_storage(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("storage") is None:
            raise ValueError("needs a storage, which several studies may share: --storage")
        return value

    @field_validator("parallel", "address", "cpus", "gpus", "resources")
    @classmethod
    def _of_ray(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("executor") != "ray" and value != cls._default(info):
            raise ValueError(
                "needs the executor ray; with local, start the same command several times and they share the work"
            )
        return value

    @field_validator("resources")
    @classmethod
    def _custom(cls, resources: Mapping[str, float]) -> Mapping[str, float]:
        for name in resources:
            if name.lower() in ("cpu", "gpu"):
                raise ValueError(f"names {name!r}, which has an option of its own: --{name.lower()}s")
        return resources

    @classmethod
    def _default(cls, info: ValidationInfo) -> Any:
        return cls.model_fields[str(info.field_name)].default
