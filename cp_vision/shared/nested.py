"""Tensors in what a model gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["tensors_in"]


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors of an output in order: of itself, or in lists, tuples and mappings, however deep."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in tensors_in(part)]
    return [output] if hasattr(output, "is_floating_point") and output.is_floating_point() else []
