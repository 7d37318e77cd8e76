"""The config of a search as a file: a user's own, and that in the output folder, which means the same anywhere."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cp_vision.shared.errors import UserError, listed
from cp_vision.shared.files import write_text

from .addresses import absolute_address, hide_password, hide_password_in_address
from .paths import whole_path, whole_paths
from .recipe import recipe_source
from .schema import CONFIG_FILE, SearchConfig

if TYPE_CHECKING:
    from ...recipes.recipe.keys import Recipe

__all__ = ["absolute", "check_evaluator", "load_config", "read_values", "with_trials", "write_config"]


def read_values(path: Path) -> dict[str, Any]:
    """Values of a config from a YAML file, not checked yet.

    Raises:
        UserError: no such file, not YAML, or no mapping of names to values.
    """
    if not path.is_file():
        raise UserError(f"config {str(path)!r} is no file; name a YAML file such as: base: resnet50")
    from ...recipes.recipe.yaml_text import parse_yaml

    values = parse_yaml(path.read_bytes(), f"config {path} is not YAML")
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"config {path} must be a mapping of keys to values, such as: base: resnet50")
    return values


def absolute(config: SearchConfig, recipe: Recipe | None = None) -> SearchConfig:
    """The same search for a process in any folder: what names a file here names it by its whole path.

    Args:
        config: the search.
        recipe: its recipe; None reads it.

    Raises:
        UserError: a recipe that can't be used.
    """
    from ...recipes.recipe.keys import load_recipe

    changes: dict[str, Any] = {}
    if config.storage is not None:
        changes["storage"] = absolute_address(config.storage)
    if config.weights not in (None, "pretrained"):
        changes["weights"] = whole_path("initial_checkpoint", config.weights)
    for key, kind in (("data_dir", Path.exists), ("recipe", Path.is_file), ("scores", Path.exists)):
        value = getattr(config, key)
        if value is not None and kind(Path(value)):
            changes[key] = str(Path(value).resolve())
    recipe = recipe or load_recipe(recipe_source(config), config.overrides)
    named = {key: path for key, path in whole_paths(recipe).items() if path != getattr(recipe, key)}
    kept = [text for text in config.overrides if text.partition("=")[0].strip() not in named]
    # JSON is YAML: whatever a path holds, it is read as text.
    paths = [f"{key}={json.dumps(path, ensure_ascii=False)}" for key, path in named.items()]
    return config.with_values(**changes, overrides=(*kept, *paths))


def write_config(config: SearchConfig, path: Path, study: str | None = None, recipe: Recipe | None = None) -> None:
    """Write a config; with a password in it, nobody but its owner may read the file.

    Args:
        config: the config.
        path: the file, in the output folder.
        study: name of the study in its storage, where the config has none.
        recipe: its recipe; None reads it.

    Raises:
        UserError: a recipe that can't be used.
        OSError: the folder can't be written.
    """
    values = absolute(config, recipe).model_dump(mode="json") | ({} if study is None else {"study": study})
    text = json.dumps(values, indent=2) + "\n"
    address, command = config.storage or "", config.command
    secret = hide_password_in_address(address) != address or hide_password(command) != command
    write_text(path, text, private=secret)


def with_trials(command: str, trials: int) -> str:
    """A ``cp-search`` command for so many trials in place of those that it names; an empty one stays empty."""
    try:
        words = shlex.split(command)
    except ValueError:
        # Not the command line's own: whoever searches from Python may say what they like.
        return command
    if not words:
        return command
    words = [word for word in words if not word.startswith("--trials=")]
    while "--trials" in words:
        at = words.index("--trials")
        del words[at : at + 2]
    return shlex.join([*words, "--trials", str(trials)])


def check_evaluator(config: SearchConfig) -> None:
    """Raise a UserError where the output folder holds a search by fits and this one is none, or the other way round."""
    path = Path(config.output) / CONFIG_FILE
    if not path.exists():
        return
    held = load_config(Path(config.output)).evaluator
    if (held == "fit") != (config.evaluator == "fit"):
        raise UserError(
            f"output {str(config.output)!r} holds a search of the evaluator {held}; choose another --output"
        )


def load_config(folder: Path, **changes: Any) -> SearchConfig:
    """The config of a search that was begun; what an older version did not write has its default.

    Args:
        folder: its output folder.
        **changes: values in place of those written there; other trials are put into the command, too.

    Raises:
        UserError: no search was begun there, or by a newer version, whose keys this one doesn't know.
    """
    path = folder / CONFIG_FILE
    try:
        values = {**json.loads(path.read_text(encoding="utf-8")), "output": str(folder)}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{str(folder)!r} holds no search: {path.name} is missing or can't be read") from error
    unknown = [key for key in values if key not in SearchConfig.model_fields]
    if unknown:
        raise UserError(
            f"{path} is of a newer version of cp-vision: it has {listed(unknown)}, which this one doesn't know; update "
            "cp-vision"
        )
    try:
        config = SearchConfig(**values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if "trials" in changes:
        changes = {"command": with_trials(config.command, changes["trials"]), **changes}
    return config.with_values(**changes)
