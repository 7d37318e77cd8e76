"""The recipe: how a model is trained, as a YAML file whose keys are argument names of timm's train.py."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from cp_vision.shared.errors import UserError, closest, listed
from cp_vision.shared.validation import FieldError, first_mistake

from .allowed import allowed
from .checks import problems
from .yaml_text import parse_yaml

__all__ = ["Recipe", "bundled_recipes", "load_recipe", "parse_overrides", "read_recipe"]

BUNDLED = Path(__file__).parent.parent / "bundled"


def _whole(value: Any) -> Any:
    """A whole number that YAML reads as another: 1e2 is a float to it. No boolean, which is a number to Python."""
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)
Natural = Annotated[int, Field(ge=0), _WHOLE]
Count = Annotated[int, Field(ge=1), _WHOLE]


class Recipe(BaseModel):
    """Every key that a recipe may have.

    The meaning of each key is the one it has in timm's train.py; the defaults are ours. ``drop_path_uniform`` is a key
    of ours alone: every block has the rate ``drop_path``, in place of rates that grow from 0 to it (timm's script takes
    no notice of the key). ``model_kwargs`` belong to ``model``. ``dataset: digits`` is the handwritten digits bundled
    with scikit-learn.
    An update sees ``batch_size`` times ``grad_accum_steps`` images, on any number of processes.

    ``img_size`` is the side of an image in pixels. The schedule's lengths, ``mixup_off_epoch`` and ``val_interval``
    are in epochs; ``log_interval`` and ``recovery_interval`` are in updates, 0 for no checkpoint within an epoch.
    With ``checkpoint_hist`` above 1 the models of so many best epochs are kept.
    Probabilities and shares are fractions, not percent; ``mean`` and ``std`` are of pixels from 0 to 1.

    Raises:
        pydantic.ValidationError: an unknown key, a wrong type or value. :func:`load_recipe` and :meth:`with_values`
            raise a UserError instead, also for values that don't go together.
    """

    # Strict: true is no number, and "3" is none.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, strict=True)

    # Data
    dataset: str = ""
    data_dir: str | None = None
    dataset_download: bool = False
    train_split: str = "train"
    val_split: str = "validation"
    class_map: str | None = None
    input_key: str | None = None
    target_key: str | None = None
    workers: Natural = 4

    # Model
    model: str = "resnet50"
    model_kwargs: dict[str, Any] = {}
    pretrained: bool = False
    initial_checkpoint: str | None = None
    num_classes: Count | None = None
    # As in a search's space: what is larger takes all memory before anybody can say so.
    img_size: Annotated[int, Field(ge=1, le=4096), _WHOLE] | None = None
    in_chans: Annotated[Literal[1, 3], _WHOLE] = 3
    drop: float = Field(0.0, ge=0, lt=1)
    drop_path: float | None = Field(None, ge=0, lt=1)
    drop_path_uniform: bool = False

    # Input
    mean: list[float] | None = None
    std: list[Annotated[float, Field(gt=0)]] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    crop_pct: float | None = Field(None, gt=0, le=1)

    # Optimiser
    batch_size: Count = 128
    grad_accum_steps: Count = 1
    validation_batch_size: Count | None = None
    opt: str = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    opt_eps: float | None = Field(None, gt=0)
    opt_betas: list[Annotated[float, Field(ge=0, lt=1)]] | None = None
    layer_decay: float | None = Field(None, gt=0, le=1)
    clip_grad: float | None = Field(None, gt=0)
    clip_mode: Literal["norm", "value", "agc"] = "norm"

    # Computing
    amp: bool = False
    amp_dtype: Literal["bfloat16", "float16"] = "bfloat16"
    channels_last: bool = False
    torchcompile: str | None = None
    torchcompile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = None
    grad_checkpointing: bool = False
    sync_bn: bool = False
    dist_bn: Literal["", "broadcast", "reduce"] = "reduce"

    # Schedule
    epochs: Count = 100
    sched: Literal["cosine", "tanh", "step", "multistep", "poly", "constant", "none"] = "cosine"
    sched_on_updates: bool = False
    warmup_epochs: Natural = 0
    warmup_prefix: bool = False
    warmup_lr: float = Field(1e-5, ge=0)
    min_lr: float = Field(0.0, ge=0)
    cooldown_epochs: Natural = 0
    decay_epochs: float = Field(90.0, gt=0)
    decay_milestones: list[Count] = [90, 180, 270]
    decay_rate: float = Field(0.1, gt=0)

    # Loss
    smoothing: float = Field(0.1, ge=0, lt=1)
    bce_loss: bool = False
    bce_target_thresh: float | None = Field(None, ge=0, lt=1)

    # Distillation
    kd_model_name: str | None = None
    kd_temperature: float = Field(4.0, gt=0)
    distill_loss_weight: float | None = Field(None, ge=0)
    task_loss_weight: float | None = Field(None, ge=0)

    # Augmentation
    no_aug: bool = False
    scale: list[float] = [0.08, 1.0]
    ratio: list[float] = [3 / 4, 4 / 3]
    hflip: float = Field(0.5, ge=0, le=1)
    vflip: float = Field(0.0, ge=0, le=1)
    color_jitter: float = Field(0.4, ge=0)
    aa: str | None = None
    aug_repeats: Natural = 0
    reprob: float = Field(0.0, ge=0, le=1)
    remode: Literal["const", "rand", "pixel"] = "pixel"
    recount: Count = 1
    train_interpolation: Literal["random", "nearest", "bilinear", "bicubic", "lanczos"] = "random"
    mixup: float = Field(0.0, ge=0)
    cutmix: float = Field(0.0, ge=0)
    mixup_prob: float = Field(1.0, ge=0, le=1)
    mixup_switch_prob: float = Field(0.5, ge=0, le=1)
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    mixup_off_epoch: Natural = 0

    # Averaged weights
    model_ema: bool = False
    model_ema_decay: float = Field(0.9998, gt=0, lt=1)
    model_ema_warmup: bool = False

    # Progress
    val_interval: Count = 1
    eval_metric: Literal["top1", "top5", "loss"] = "top1"
    log_interval: Count = 50
    recovery_interval: Natural = 500
    checkpoint_hist: Count = 1
    log_wandb: bool = False
    wandb_project: str | None = None
    wandb_tags: list[str] = []
    wandb_resume_id: str | None = None

    seed: Annotated[int, Field(ge=0, lt=2**32), _WHOLE] = 42

    @model_validator(mode="before")
    @classmethod
    def _as_in_a_file(cls, values: Any) -> Any:
        # A key of YAML may be a number.
        return {str(key): _lists(value) for key, value in values.items()} if isinstance(values, dict) else values

    @field_validator("model_kwargs")
    @classmethod
    def _are_arguments(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, argument in value.items():
            # timm leaves out arguments that are null, so a misspelt one would go unseen.
            if argument is None or not name.isidentifier():
                raise ValueError(f"gives {name!r} no value; write {{name: value}}, for example {{depth: 2}}")
        return value

    @property
    def update_size(self) -> int:
        """Images of one update, over all micro-batches and processes."""
        return self.batch_size * self.grad_accum_steps

    @property
    def mixes(self) -> bool:
        """Whether images are mixed (mixup or cutmix)."""
        return self.mixup > 0 or self.cutmix > 0

    def mixes_in(self, epoch: int) -> bool:
        """Whether images are mixed in an epoch, counted from 0."""
        return self.mixes and not 0 < self.mixup_off_epoch <= epoch

    def with_values(self, **values: Any) -> Recipe:
        """Return a copy with some values replaced, checked like a file.

        Raises:
            UserError: an unknown key or a wrong value.
        """
        return _checked({**self.model_dump(), **values}, "recipe")

    def to_yaml(self) -> str:
        """The recipe as YAML with every key that has a value: it means the same to other versions and to timm."""
        return yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False)


def bundled_recipes() -> list[Path]:
    """Files of the bundled recipes, by name."""
    return sorted(BUNDLED.glob("*.yaml"))


def load_recipe(recipe: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe, as :func:`read_recipe`."""
    return read_recipe(recipe, overrides)[0]


def read_recipe(recipe: str | Path, overrides: Iterable[str] = ()) -> tuple[Recipe, str | None]:
    """Read a recipe.

    Args:
        recipe: path of a YAML file, or the name of a bundled recipe (``digits``).
        overrides: ``key=value`` texts, the value in YAML. Another ``model`` leaves the
            file's ``model_kwargs`` out.

    Returns:
        The recipe, and what is to be said of values that were left out; None where none was.

    Raises:
        UserError: no such file, not YAML, an override without ``=``, an unknown key, a wrong type or value.
    """
    path = Path(recipe)
    if not path.is_file() and (BUNDLED / f"{recipe}.yaml").is_file():
        path = BUNDLED / f"{recipe}.yaml"
    if not path.is_file():
        names = [file.stem for file in bundled_recipes()]
        hint = closest(path.stem.lower(), names) or f"; bundled are {listed(names, len(names))}"
        raise UserError(f"no recipe {str(recipe)!r}: neither a file nor a bundled recipe{hint}")
    values = parse_yaml(path.read_bytes(), f"recipe {path} is not YAML")
    if not isinstance(values, dict):
        raise UserError(f"recipe {path} must be a mapping of keys to values")
    own, replaced = (values.get("model"), values.get("model_kwargs")), parse_overrides(overrides)
    values |= replaced
    note = None
    if values.get("model") != own[0] and values.get("model_kwargs") is own[1]:
        left_out = values.pop("model_kwargs", None)
        if left_out:
            note = (
                f"model_kwargs {left_out} of the recipe are {own[0]}'s and left out for {values['model']}; "
                "--set model_kwargs=... sets them"
            )
    return _checked(values, f"recipe {path}", replaced), note


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` texts, the value in YAML.

    Raises:
        UserError: a text without ``=``, or a value that is not YAML.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text!r} must be key=value, for example --set epochs=10")
        values[key.strip()] = parse_yaml(value, f"--set {text!r}: the value is not YAML")
    return values


def _lists(value: Any) -> Any:
    """A value with lists in place of its tuples, as it comes back from a file."""
    if isinstance(value, dict):
        return {key: _lists(part) for key, part in value.items()}
    return [_lists(part) for part in value] if isinstance(value, list | tuple) else value


def _checked(values: dict[str, Any], source: str, replaced: Collection[str] = ()) -> Recipe:
    """A recipe of these values, of which some stand in the source and some replace them by ``--set``."""

    def mistake(keys: tuple[str, ...], text: str) -> UserError:
        return UserError(f"{source if set(keys).isdisjoint(replaced) else '--set'}: {text}")

    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        found = first_mistake(error, Recipe.model_fields)
        key = found.field.partition(".")[0] if isinstance(found, FieldError) else ""
        words = allowed(Recipe, key) if key in Recipe.model_fields else ""
        raise mistake((key,), f"{found}; it takes {words}" if "list" in words else str(found)) from error
    for keys, problem in problems(recipe):
        raise mistake(keys, problem)
    return recipe
