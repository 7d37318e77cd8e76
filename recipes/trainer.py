"""Training and scoring one model, on timm's task, optimisers, schedulers, averaged weights and evaluator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from timm.models import model_parameters
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.task import ClassificationEvaluator, ClassificationTask
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import nn

from cp_vision.errors import UserError, one_line

from .schema import Recipe

__all__ = ["TrainingError", "evaluate", "rehearse", "train"]


class TrainingError(RuntimeError):
    """Training can't go on; the message says why in one line."""


def train(
    model: nn.Module,
    recipe: Recipe,
    loader: Any,
    device: torch.device,
    on_epoch: Callable[[int, int, float], None] | None = None,
) -> nn.Module:
    """Train a model by a recipe.

    Args:
        model: the model; moved to the device and trained in place.
        recipe: the recipe.
        loader: training loader of :func:`cp_vision.recipes.make_loader`.
        device: where to train.
        on_epoch: called after every epoch with its number from 1, the number of epochs and the mean loss.

    Returns:
        The trained model, or with ``model_ema`` the model of averaged weights, in evaluation mode.

    Raises:
        TrainingError: the loss is not finite.
    """
    task, optimizer, scheduler, epochs = _set_up(model, recipe, len(loader), device)
    averaged = (
        ModelEmaV3(model, decay=recipe.model_ema_decay, use_warmup=recipe.model_ema_warmup)
        if recipe.model_ema
        else None
    )
    updates = 0
    for epoch in range(epochs):
        if recipe.mixup_off_epoch and epoch >= recipe.mixup_off_epoch and loader.mixup_enabled:
            loader.mixup_enabled = False
        losses = 0.0
        for images, targets in loader:
            value = _step(task, optimizer, recipe, images, targets)
            if not math.isfinite(value):
                raise TrainingError(f"the loss is {value} in epoch {epoch + 1}; lower lr or set clip_grad")
            updates += 1
            if averaged is not None:
                averaged.update(model, step=updates)
            if scheduler is not None:
                scheduler.step_update(num_updates=updates)
            losses += value
        if scheduler is not None:
            scheduler.step(epoch + 1)
        if on_epoch is not None:
            on_epoch(epoch + 1, epochs, losses / len(loader))
    return (model if averaged is None else averaged.module).eval()


def rehearse(model: nn.Module, recipe: Recipe, loader: Any, test_loader: Any, device: torch.device) -> None:
    """Take one training step and score one batch, so that mistakes show before anything is written.

    Args:
        model: a model to throw away.
        recipe: the recipe.
        loader: training loader.
        test_loader: the other loader.
        device: where to train.

    Raises:
        UserError: the model, the recipe and the data don't go together.
    """
    try:
        task, optimizer, _, _ = _set_up(model, recipe, len(loader), device)
        loss = _step(task, optimizer, recipe, *next(iter(loader)))
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss}; look at mean, std and lr")
        evaluate(model, itertools.islice(test_loader, 1), device)
    except Exception as error:
        # Whatever a value of the recipe makes timm or torch raise: one line, with the kind where it tells something.
        raise UserError(f"a first training step fails: {type(error).__name__}: {one_line(error)}") from error


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Any, device: torch.device) -> dict[str, float]:
    """Score a model.

    Args:
        model: the model; moved to the device, in evaluation mode afterwards.
        loader: loader of :func:`cp_vision.recipes.make_loader`, not training.
        device: where to run.

    Returns:
        ``top1`` and ``top5`` in percent, and the mean cross-entropy ``loss``.
    """
    model = model.to(device).eval()
    evaluator = ClassificationEvaluator(device)
    for images, targets in loader:
        evaluator.update(model(images), targets)
    return dict(evaluator.compute())


def _set_up(model: nn.Module, recipe: Recipe, updates_per_epoch: int, device: torch.device) -> tuple[Any, ...]:
    """The task, the optimiser, the scheduler (or None) and the number of epochs."""
    model = model.to(device).train()
    loss_type = "bce" if recipe.bce_loss else "ce"
    criterion: dict[str, Any] = {
        "loss_type": loss_type,
        "smoothing": recipe.smoothing,
        "soft_targets": recipe.mixes,
    }
    if recipe.bce_loss:
        criterion["bce_target_thresh"] = recipe.bce_target_thresh
    task = ClassificationTask(model, criterion_kwargs=criterion, device=device, verbose=False)
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(recipe))
    scheduler, epochs = create_scheduler_v2(optimizer, updates_per_epoch=updates_per_epoch, **scheduler_kwargs(recipe))
    return task, optimizer, scheduler, epochs


def _step(
    task: ClassificationTask, optimizer: Any, recipe: Recipe, images: torch.Tensor, targets: torch.Tensor
) -> float:
    """One update; returns the loss. A loss that is not finite changes nothing."""
    optimizer.zero_grad()
    loss = task(images, targets)["loss"]
    value = loss.item()
    if math.isfinite(value):
        loss.backward()
        if recipe.clip_grad is not None:
            parameters = model_parameters(task.trainable_module, exclude_head=recipe.clip_mode == "agc")
            dispatch_clip_grad(parameters, recipe.clip_grad, mode=recipe.clip_mode)
        optimizer.step()
    return value
