"""The config of a search in its output folder: it means the same wherever it is read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from cp_vision.files import write_text

from ..recipes.schema import load_recipe
from .addresses import absolute_address, hide_password, hide_password_in_address
from .choices import load_choices
from .config import SearchConfig, recipe_source
from .paths import whole_paths

__all__ = ["absolute", "write_config"]


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
    own = {"space": load_choices(config.space).model_dump(mode="json"), "output": str(config.output)}
    text = json.dumps(dataclasses.asdict(absolute(config)) | own, indent=2) + "\n"
    address, command = config.storage or "", config.command
    secret = hide_password_in_address(address) != address or hide_password(command) != command
    write_text(path, text, private=secret)
