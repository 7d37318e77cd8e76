"""Running means and variances of BatchNorms, taken anew where a change upstream moved them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..anatomy.block import DroppedBlock
from ..anatomy.replacement import Replacement
from .batches import Batches

__all__ = ["recalibrate_norms"]


@torch.no_grad()
def recalibrate_norms(model: nn.Module, images: Batches) -> int:
    """Take the running statistics of all BatchNorms behind the first change from these images, one pass.

    ``torch.optim.swa_utils.update_bn`` does it for all norms of a model, with dropout on; those before the first
    stand-in or dropped block see what they always saw.

    Args:
        model: changed in place, but for its training flags.
        images: batches; those of a single image are left out where there are others.

    Returns:
        How many norms there were.
    """
    norms = [norm for norm in _behind_changes(model, images) if norm.track_running_stats]
    if not norms:
        return 0
    before = [(norm, norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # The mean of all batches.
        norm.momentum = None
        norm.training = True
    try:
        several = any(len(batch) > 1 for batch in images)
        for batch in images:
            if len(batch) > 1 or not several:
                model(batch)
    finally:
        for norm, momentum, training in before:
            norm.momentum, norm.training = momentum, training
    return len(norms)


def _behind_changes(model: nn.Module, images: Batches) -> list[Any]:
    changes = Replacement | DroppedBlock
    order: list[nn.Module] = []
    handles = [
        part.register_forward_pre_hook(lambda module, args: order.append(module))
        for part in model.modules()
        if isinstance(part, changes | _BatchNorm)
    ]
    try:
        model(next(iter(images))[:1])
    finally:
        for handle in handles:
            handle.remove()
    first = next((i for i, part in enumerate(order) if isinstance(part, changes)), len(order))
    return list(dict.fromkeys(part for part in order[first:] if isinstance(part, _BatchNorm)))
