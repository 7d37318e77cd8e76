"""What all changes of a model share: the names that they are given, and where what they add belongs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ..shared.errors import UserError

__all__ = ["as_names", "dtype_and_device"]


def as_names(names: Iterable[str], what: str) -> tuple[str, ...]:
    """Check names that a user gave; ``what`` is the argument that they were given as."""
    if isinstance(names, str):
        raise UserError(f"{what} {names!r} must be a list of block names, not one string; write [{names!r}]")
    if not isinstance(names, Iterable):
        raise UserError(f"{what} {names!r} must be a list of block names")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"{what}: {name!r} is not a block name")
    return names


def dtype_and_device(*modules: nn.Module) -> dict[str, Any]:
    """Those of the first parameter of floating point in the first module that has one."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return {"dtype": parameter.dtype, "device": parameter.device}
    return {}
