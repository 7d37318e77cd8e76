"""Work on a large batch a few images at a time, so that what lies between stays small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["group_size", "map_groups"]

# Batches above the first are taken in groups of about the second, which is where that became faster.
_BATCH_BYTES = 8 << 20
_GROUP_BYTES = 4 << 20


def group_size(first: Tensor) -> int | None:
    """How many images of a batch (B, ...) to treat at a time; None stands for all at once.

    Groups are for the CPU: other devices, and graphs that are being compiled, exported or counted, take the batch at
    once.
    """
    plain = type(first) is Tensor and first.device.type == "cpu" and not torch.compiler.is_compiling()
    if not plain or len(first) < 2 or first.nbytes <= _BATCH_BYTES:
        return None
    return max(1, _GROUP_BYTES // first[:1].nbytes)


def map_groups(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Call a function of batches on groups of images, and join the results along the batch.

    Args:
        function: treats every image by itself; gives (B, ...).
        tensors: its arguments, (B, ...) each; the size of the first decides how many images make a group.
    """
    first, group = tensors[0], group_size(tensors[0])
    if group is None:
        return function(*tensors)
    parts = (function(*part) for part in zip(*(tensor.split(group) for tensor in tensors), strict=True))
    if torch.is_grad_enabled():
        return torch.cat(list(parts))
    joined, start = first, 0
    for part in parts:
        if start == 0:
            # Expanded, a part tells the whole's shape, type and memory format.
            joined = torch.empty_like(part[:1].expand(len(first), *part.shape[1:]))
        joined[start : start + len(part)] = part
        start += len(part)
    return joined
