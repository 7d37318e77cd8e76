"""The floating-point precision that a recipe computes in."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from .recipe.keys import Recipe

__all__ = ["amp_type", "autocast"]


def amp_type(recipe: Recipe) -> torch.dtype | None:
    """The lower precision of a recipe, None where it has none."""
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return kinds[recipe.amp_dtype] if recipe.amp else None


def autocast(recipe: Recipe | None, device: torch.device) -> Any:
    """A context that computes in the recipe's precision, or in float32 without one."""
    kind = None if recipe is None else amp_type(recipe)
    return contextlib.nullcontext() if kind is None else torch.autocast(device.type, kind)
