"""The config of a search in its output folder: it means the same wherever it is read."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from cp_vision.shared.errors import UserError
from cp_vision.shared.files import write_text

from ...recipes.recipe.keys import load_recipe
from .addresses import absolute_address, hide_password, hide_password_in_address
from .paths import whole_paths
from .schema import CONFIG_FILE, SearchConfig, recipe_source
from .space_options import load_space_options

__all__ = ["absolute", "load_config", "with_trials", "write_config"]


def absolute(config: SearchConfig) -> SearchConfig:
    """The same search for a process in any folder: what names a file here names it by its whole path.

    Raises:
        UserError: a recipe that can't be used.
    """
    changes: dict[str, Any] = {}
    if config.storage is not None:
        changes["storage"] = absolute_address(config.storage)
    for key, kind in (("data_dir", Path.exists), ("recipe", Path.is_file)):
        value = getattr(config, key)
        if value is not None and kind(Path(value)):
            changes[key] = str(Path(value).resolve())
    recipe = load_recipe(recipe_source(config), config.overrides)
    named = {key: path for key, path in whole_paths(recipe).items() if path != getattr(recipe, key)}
    kept = [text for text in config.overrides if text.partition("=")[0].strip() not in named]
    # JSON is YAML: whatever a path holds, it is read as text.
    paths = [f"{key}={json.dumps(path, ensure_ascii=False)}" for key, path in named.items()]
    return dataclasses.replace(config, **changes, overrides=(*kept, *paths))


def write_config(config: SearchConfig, path: Path) -> None:
    """Write a config; with a password in it, nobody but its owner may read the file.

    Args:
        config: the config.
        path: the file, in the output folder.

    Raises:
        UserError: a space or a recipe that can't be used.
        OSError: the folder can't be written.
    """
    own = {"space": load_space_options(config.space).model_dump(mode="json"), "output": str(config.output)}
    text = json.dumps(dataclasses.asdict(absolute(config)) | own, indent=2) + "\n"
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


def load_config(folder: Path, **changes: Any) -> SearchConfig:
    """The config of a search that was begun.

    Args:
        folder: its output folder.
        **changes: values in place of those written there; other trials are put into the command, too.

    Raises:
        UserError: no search was begun there.
    """
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if "trials" in changes:
            values["command"] = with_trials(values["command"], changes["trials"])
        return SearchConfig(**{**values, "overrides": tuple(values["overrides"]), "output": str(folder), **changes})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{str(folder)!r} holds no search: {path.name} is missing or can't be read") from error
