"""Scoring a model on a split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm.task import ClassificationEvaluator
from torch import Tensor, nn

from cp_vision.shared.errors import UserError

from ..precision import autocast
from ..processes import Processes
from ..recipe.keys import Recipe

__all__ = ["evaluate"]


@torch.inference_mode()
def evaluate(
    model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], processes: Processes, recipe: Recipe | None = None
) -> dict[str, float]:
    """Score a model.

    Args:
        model: the model, (B, C, H, W) -> (B, classes); moved to the device, in evaluation mode afterwards.
        loader: a :class:`ScoringLoader`, or any images (B, C, H, W) with their classes (B,) on the device.
        processes: this process; the scores are those of all processes together.
        recipe: says in which precision; None takes float32.

    Returns:
        ``top1`` and ``top5`` in percent, and the mean cross-entropy ``loss``.

    Raises:
        CommandError: raised by the loader: too many images can't be read.
        UserError: not one image could be had.
        ValueError: outputs or classes of another shape.
    """
    model = model.to(processes.device).eval()
    evaluator = ClassificationEvaluator(processes.device)
    for images, targets in loader:
        # A batch of images none of which can be read is empty.
        if len(targets):
            with autocast(recipe, processes.device):
                evaluator.update(model(images), targets)
    if not processes.any(torch.tensor([evaluator.num_samples > 0])).item():
        split = "" if recipe is None else f" of val_split {recipe.val_split!r}"
        raise UserError(
            f"not one image{split} can be had, so nothing can be scored; look at its files, input_key and target_key"
        )
    return dict(evaluator.compute(distributed=processes.count > 1))
