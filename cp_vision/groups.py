"""Work on a large batch a few images at a time, so that what lies between stays in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["is_grouped", "map_groups"]

_GROUP_BYTES = 4 << 20

Result = TypeVar("Result", Tensor, tuple[Tensor, ...])


def is_grouped(x: Tensor) -> bool:
    """Whether a batch is taken in groups: on the CPU, unless its graph is being compiled, exported or counted."""
    return type(x) is Tensor and x.device.type == "cpu" and not torch.compiler.is_compiling()


def map_groups(function: Callable[..., Result], *tensors: Tensor) -> Result:
    """Call a function of batches on groups of images and join the results along the batch; without gradients.

    Args:
        function: treats every image by itself; gives one or more tensors (B, ...).
        tensors: its arguments, (B, ...) each; the size of the first decides how many images make a group.
    """
    first = tensors[0]
    group = max(1, _GROUP_BYTES // max(1, first[:1].nbytes)) if is_grouped(first) else len(first)
    if group >= len(first):
        return function(*tensors)
    joined: list[Tensor] = []
    for start in range(0, len(first), group):
        part = function(*(tensor[start : start + group] for tensor in tensors))
        parts = (part,) if isinstance(part, Tensor) else part
        if not joined:
            # Expanded, a part tells the whole's shape and memory format.
            joined = [torch.empty_like(each[:1].expand(len(first), *each.shape[1:])) for each in parts]
        for whole, each in zip(joined, parts, strict=True):
            whole[start : start + group] = each
    return joined[0] if isinstance(part, Tensor) else tuple(joined)
