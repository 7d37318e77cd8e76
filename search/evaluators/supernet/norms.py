"""Running statistics of batch norms for one sub-architecture: those of shared weights are of none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from cp_vision.fitting.recalibrate import tracked_norms

from ....recipes.precision import autocast
from ....recipes.processes import Processes
from ....recipes.recipe.keys import Recipe

__all__ = ["recalibrated"]


@contextlib.contextmanager
def recalibrated(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], processes: Processes, recipe: Recipe | None = None
) -> Iterator[None]:
    """Inside, running statistics are the plain mean over these batches; afterwards they are what they were.

    Args:
        model: the model, on the device of the process; in evaluation mode afterwards.
        batches: pairs of images (B, C, H, W) and targets.
        processes: this process.
        recipe: says in which precision; None takes float32.

    Source: Yu, Huang, ICCV 2019, arXiv 1903.05134, section 3.3 (post-statistics of batch normalisation).
    """
    model.eval()
    norms = tracked_norms(model).values()
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            # None is the mean over all batches.
            norm.momentum = None
            norm.train()
        with torch.no_grad(), autocast(recipe, processes.device):
            for images, _ in batches if norms else ():
                model(images)
        model.eval()
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
        for buffer, old in kept:
            buffer.copy_(old)
