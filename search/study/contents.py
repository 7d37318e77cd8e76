"""What a study holds of its search beside the trials: enough to show it, and to go on with it, by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import cp_vision
from cp_vision.shared.errors import UserError
from cp_vision.shared.validation import first_mistake

from ...recipes.recipe.keys import Recipe, parse_overrides
from ..config.recipe import recipe_source
from ..config.schema import SearchConfig
from ..space.space import Space

__all__ = ["StudyContents"]

_KEYS = ("settings", "recipe", "recipe_source", "space", "data", "version")
# Values of a recipe that change no result, or stand in the settings in another form.
_FREE = {"model", "model_kwargs", "workers", "dataset_download", "validation_batch_size", "data_dir", "seed"}
_FREE |= {"log_interval", "recovery_interval", "val_interval", "eval_metric", "checkpoint_hist"}
_FREE |= {"log_wandb", "wandb_project", "wandb_tags", "wandb_resume_id"}
# Settings that hold one value for each of their keys, and how these are called.
_GROUPS = {"limits": "budget in", "model_args": "model argument"}
_DATA = "what tells the images and classes from others"
_WORDS = {"early_stop": "early stopping", "images": "number of images", "val_fraction": "validation fraction"}
_WORDS |= {"data": _DATA}


@dataclass(frozen=True)
class StudyContents:
    """A search as its study holds it.

    Attributes:
        settings: what decides results beside the recipe: values of the config under their names there, and
            ``data`` (what tells images and classes from others), ``images``, ``limits``, ``model_args``,
            ``pool_options``, ``space``.
        recipe: every value of the recipe that trains the candidates.
        recipe_source: where that was read: a whole path or the name of a bundled one.
        space: the space with its costs and budgets.
        data: what results show of the data: ``dataset`` (its name), ``classes`` (names by index), ``images`` (numbers
            of those to train on, to compare candidates on and of the final test), ``input_size`` (channels, height,
            width in pixels).
        version: of cp-vision, by which the study was made.
    """

    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]
    recipe_source: str
    space: Space
    data: Mapping[str, Any]
    version: str = cp_vision.__version__

    def to_attrs(self) -> dict[str, Any]:
        """The attributes of the study, JSON values."""
        values = {key: getattr(self, key) for key in _KEYS}
        found: dict[str, Any] = json.loads(json.dumps({**values, "space": self.space.to_json()}))
        return found

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any], place: str) -> StudyContents:
        """Read the attributes of a study.

        Args:
            attrs: they.
            place: the study, for errors.

        Raises:
            UserError: no study of a search, or one of a version that kept it in another form.
        """
        if "settings" not in attrs:
            raise UserError(f"{place} is no study of cp-search; choose another output folder")
        version = attrs.get("version", "0.1.0")
        missing = [key for key in _KEYS if key not in attrs]
        advice = "read it with that one, or search again into another --output; its report and tables stay"
        if missing:
            raise UserError(
                f"{place} was made by cp-vision {version} before a study held its {missing[0]}, which this version "
                f"({cp_vision.__version__}) needs; {advice}"
            )
        try:
            return cls(**{key: attrs[key] for key in _KEYS if key != "space"}, space=Space.from_json(attrs["space"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{place} was made by cp-vision {version}, whose space this version ({cp_vision.__version__}) can't "
                f"read ({error}); {advice}"
            ) from error

    @property
    def recipe_name(self) -> str:
        """Name of the recipe, for people."""
        return Path(self.recipe_source).stem

    def make_recipe(self) -> Recipe:
        """The recipe; values that this version doesn't know are left out, those that it lacks are the defaults.

        Raises:
            UserError: a value that this version refuses.
        """
        try:
            return Recipe(**{key: value for key, value in self.recipe.items() if key in Recipe.model_fields})
        except ValidationError as error:
            raise UserError(
                f"the study was made by cp-vision {self.version}, whose recipe this version ({cp_vision.__version__}) "
                f"refuses: {first_mistake(error, Recipe.model_fields)}; go on with that version"
            ) from error

    def recipe_if_gone(self, config: SearchConfig) -> Recipe | None:
        """The recipe with the config's changes where the file that it was read from is gone; None where it is there.

        Raises:
            UserError: a change that the recipe doesn't take.
        """
        source = Path(recipe_source(config))
        if str(source.resolve()) != self.recipe_source or source.exists():
            return None
        changes = parse_overrides(config.overrides)
        changes |= {key: getattr(config, key) for key in ("dataset", "data_dir") if getattr(config, key) is not None}
        return self.make_recipe().with_values(**changes)

    def differences(self, wanted: StudyContents) -> Iterator[tuple[str, Any, Any]]:
        """What decides results and differs from another search: its name for people, the value here, the one there.

        What one of both doesn't know, since it is of another version, is no difference; what was added since this
        study was made has its default here.
        """
        here, there = self._named(), wanted._named()
        for name in sorted({*here, *there}):
            if name == _DATA and here[name] is None:
                # This study was made before it was kept.
                continue
            if here.get(name) != there.get(name):
                yield name, here.get(name), there.get(name)

    def _named(self) -> dict[str, Any]:
        settings: dict[str, Any] = json.loads(json.dumps(dict(self.settings)))
        fields = SearchConfig.model_fields
        found: dict[str, Any] = {}
        for key in _SETTINGS:
            value = settings.get(key, fields[key].default if key in fields else None)
            if key in _GROUPS:
                found |= {f"{_GROUPS[key]} {name}": item for name, item in (value or {}).items()}
            else:
                found[_WORDS.get(key, key.replace("_", " "))] = value
        for key, default in Recipe.model_validate({}).model_dump(mode="json").items():
            if key not in _FREE:
                found[f"recipe value {key}"] = self.recipe.get(key, default)
        return found


_SETTINGS = (
    *("base", "data", "early_stop", "evaluator", "images", "keep_accuracy", "limits", "model_args", "objective"),
    *("pool_options", "sampler", "seed", "space", "supernet_epochs", "val_fraction"),
)
"""The settings that this version knows."""
