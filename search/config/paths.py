"""Files that a recipe names, by paths that mean the same from any folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...recipes.recipe.keys import Recipe

__all__ = ["whole_path", "whole_paths"]

# Keys of a recipe that name files or folders, with what may stand before a path: nothing, or the name of timm's for it.
_FOLDER = "local-dir:"
_FILES = {"data_dir": ("",), "class_map": ("",), "initial_checkpoint": (_FOLDER, ""), "kd_model_name": (_FOLDER,)}


def whole_path(key: str, value: Any) -> Any:
    """The value of a recipe's key, with a whole path where it names a file or folder as seen from this folder."""
    if not isinstance(value, str):
        return value
    before = next((before for before in _FILES.get(key, ()) if value.startswith(before)), None)
    if before is None or value == before:
        return value
    path = Path(value.removeprefix(before))
    return f"{before}{path.resolve()}" if path.exists() else value


def whole_paths(recipe: Recipe) -> dict[str, Any]:
    """Values of the keys of a recipe that name files, see :func:`whole_path`."""
    return {key: whole_path(key, getattr(recipe, key)) for key in _FILES}
