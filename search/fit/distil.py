"""Training a chosen model towards its base on unlabelled images, watched on those held out."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cp_vision.shared.nested import tensors_in

from .workbench import Workbench

__all__ = ["distil"]

# Large pretrained models bear small rates alone, small ones learn more from larger ones; each is tried on some batches.
_RATES, _TRIED = (3e-5, 1e-4, 3e-4, 1e-3), 24


def distil(bench: Workbench, model: nn.Module, epochs: int, batches: Iterable[Tensor]) -> tuple[nn.Module, float, int]:
    """Train a copy by the squared error of its last features, with AdamW.

    A base has often seen the images: losses of classes would take the model away from what the base does on others.
    The learning rate is that which is best on held-out images after some batches. Norms keep their statistics, and
    nothing is dropped out. The same images give the same weights.

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
    wanted = _features(bench.model)
    scores = []
    for rate in _RATES:
        student = copy.deepcopy(model)
        _train(student, _optimizer(student, rate), itertools.islice(batches, _TRIED), wanted)
        scores.append(bench.score_model(student))
    student = copy.deepcopy(model)
    optimizer = _optimizer(student, _RATES[scores.index(min(scores))])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(1, epochs + 1):
        _train(student, optimizer, batches, wanted)
        schedule.step()
        now = bench.score_model(student)
        if now < score:
            best, score, kept = copy.deepcopy(student), now, epoch
    return best, score, kept


def _optimizer(student: nn.Module, rate: float) -> torch.optim.Optimizer:
    for parameter in student.parameters():
        parameter.requires_grad_()
    return torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=0)


@torch.enable_grad()
def _train(
    student: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Tensor], wanted: Callable[..., list[Tensor]]
) -> None:
    given = _features(student)
    for batch in batches:
        with torch.no_grad():
            targets = wanted(batch)
        optimizer.zero_grad()
        pairs = list(zip(given(batch), targets, strict=True))
        parts = [(own - target).square().mean() / target.var().clamp_min(1e-12) for own, target in pairs]
        torch.stack(parts).mean().backward()
        optimizer.step()


def _features(model: Any) -> Callable[[Tensor], list[Tensor]]:
    """The last features of timm's models, of others what they give."""
    run = getattr(model, "forward_features", model)
    return lambda batch: tensors_in(run(batch))
