"""Training a chosen model towards its base on unlabelled images, watched on those held out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cp_vision.shared.nested import tensors_in

from .workbench import Workbench

__all__ = ["distil"]

# A base has often seen the images: higher rates, and losses of classes, take the model away from what the base does
# on others.
_RATE = 3e-5


def distil(bench: Workbench, model: nn.Module, epochs: int, batches: Iterable[Tensor]) -> tuple[nn.Module, float, int]:
    """Train a copy by the squared error of its last features, with AdamW.

    Norms keep their statistics, and nothing is dropped out. The same images give the same weights.

    Args:
        bench: the base and its images.
        model: in eval mode; left untouched.
        epochs: passes over the batches.
        batches: of images, that can be read again and again.

    Returns:
        The best state on held-out images after any epoch, the untrained one among them; its score; after how many
        epochs it was.
    """
    best, score, kept = model, bench.score_model(model), 0
    student = copy.deepcopy(model)
    for parameter in student.parameters():
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(student.parameters(), lr=_RATE, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    given, wanted = _features(student), _features(bench.model)
    for epoch in range(1, epochs + 1):
        for batch in batches:
            with torch.no_grad():
                targets = wanted(batch)
            optimizer.zero_grad()
            with torch.enable_grad():
                pairs = list(zip(given(batch), targets, strict=True))
                parts = [(own - target).square().mean() / target.var().clamp_min(1e-12) for own, target in pairs]
                torch.stack(parts).mean().backward()
            optimizer.step()
        schedule.step()
        now = bench.score_model(student)
        if now < score:
            best, score, kept = copy.deepcopy(student), now, epoch
    return best, score, kept


def _features(model: Any) -> Callable[[Tensor], list[Tensor]]:
    """The last features of timm's models, of others what they give."""
    run = getattr(model, "forward_features", model)
    return lambda batch: tensors_in(run(batch))
