"""Running means and variances of BatchNorms, moved as far as a change upstream moved what they see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..anatomy.block import DroppedBlock
from ..anatomy.replacement import Replacement

__all__ = ["Seen", "measuring", "norm_statistics", "recalibrate_norms", "tracked_norms"]


class Seen(NamedTuple):
    """What a BatchNorm of a base has, and what it sees on some images.

    Attributes:
        running_mean: that it has, (C,).
        running_var: likewise.
        mean: of what it sees, where all norms take those of the batch, (C,).
        var: likewise.
    """

    running_mean: Tensor
    running_var: Tensor
    mean: Tensor
    var: Tensor


@torch.no_grad()
def norm_statistics(model: nn.Module, images: Iterable[Tensor]) -> dict[str, Seen]:
    """What all BatchNorms of a model see on these images, by path; the model is left as it was.

    Args:
        model: in eval mode.
        images: batches, to be read twice; those of a single image are left out where there are others.
    """
    norms = tracked_norms(model)
    had = {path: (norm.running_mean.clone(), norm.running_var.clone()) for path, norm in norms.items()}
    with measuring(model):
        several = any(len(batch) > 1 for batch in images)
        for batch in images:
            if len(batch) > 1 or not several:
                model(batch)
        return {
            path: Seen(*had[path], norm.running_mean.clone(), norm.running_var.clone()) for path, norm in norms.items()
        }


@torch.no_grad()
def recalibrate_norms(model: nn.Module, images: Iterable[Tensor], base: Mapping[str, Seen] | None = None) -> int:
    """Let the running statistics of all BatchNorms behind the first change fit what comes by there now.

    A mean gets what it has in the base, and what its mean on these images is more than the base's on the same ones; a
    variance likewise, as a factor. So a model without a change stays as it is, however few the images are, and however
    the base came by its statistics. Norms that the base doesn't have, and all where no base is given, take the
    statistics of these images.

    ``torch.optim.swa_utils.update_bn`` does the latter for all norms of a model, with dropout on; those before the
    first stand-in or dropped block see what they always saw.

    Args:
        model: in eval mode; changed in place.
        images: batches, to be read several times; those of a single image are left out where there are others.
        base: what the base's norms see on the same images.

    Returns:
        How many norms there were.
    """
    behind = _behind_changes(model, images)
    if not behind:
        return 0
    seen = norm_statistics(model, images)
    for path, norm in behind.items():
        mean, var = seen[path].mean, seen[path].var
        if base is not None and path in base:
            of_base = base[path]
            mean = of_base.running_mean + (mean - of_base.mean)
            # What is dead in the base may stay so.
            least = norm.eps + torch.finfo(var.dtype).tiny
            var = of_base.running_var * ((var + least) / (of_base.var + least))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
    return len(behind)


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Within, all BatchNorms take the statistics of each batch, and their running ones become the mean of all."""
    norms = tracked_norms(model).values()
    before = [(norm, norm.momentum, norm.training, [buffer.clone() for buffer in norm.buffers()]) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # The mean of all batches.
        norm.momentum = None
        norm.training = True
    try:
        yield
    finally:
        for norm, momentum, training, buffers in before:
            norm.momentum, norm.training = momentum, training
            for buffer, value in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(value)


def tracked_norms(model: nn.Module) -> dict[str, Any]:
    """The BatchNorms of a model that keep running statistics, by path."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }


def _behind_changes(model: nn.Module, images: Iterable[Tensor]) -> dict[str, Any]:
    changes = Replacement | DroppedBlock
    order: list[nn.Module] = []
    paths: dict[nn.Module, str] = {part: path for path, part in model.named_modules() if isinstance(part, changes)}
    paths |= {norm: path for path, norm in tracked_norms(model).items()}
    handles = [part.register_forward_pre_hook(lambda module, args: order.append(module)) for part in paths]
    try:
        model(next(iter(images))[:1])
    finally:
        for handle in handles:
            handle.remove()
    first = next((i for i, part in enumerate(order) if isinstance(part, changes)), len(order))
    return {paths[part]: part for part in order[first:] if not isinstance(part, changes)}
