"""What shared weights learn from: the sandwich rule with distillation from the whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from cp_vision import Architecture

from ...space.repair import Random
from .model import Supernet

__all__ = ["Draw", "SandwichTask"]

Draw = Callable[[Random], Architecture]
"""Gives an architecture at random, by the random numbers that it is handed."""


class SandwichTask(nn.Module):
    """The loss of shared weights: that of the whole, of the smallest architecture, and of some between at random.

    The whole learns by the recipe's own task. The others learn what it says, and what the task says:

        loss = mean over all of them;  of a smaller one: share * task + (1 - share) * distance(its logits, the whole's)

    Gradients don't flow into what the whole says. The distance is the cross-entropy with its softmax, or where the
    recipe's loss is binary with each sigmoid. Those at random are drawn from Python's random numbers, which
    :class:`cp_vision.recipes.Trainer` seeds by the place in the training.

    Args:
        task: timm's task that trains the whole; gives ``loss`` and ``output``, and has a ``criterion``.
        supernet: the shared weights that the task trains.
        smallest: the smallest architecture.
        draw: gives the ones at random.
        count: how many at random.
        task_share: the task's share in the loss of the smaller ones, from 0 to 1.
        binary: whether the task's loss is binary.

    Source: Yu, Huang, *Universally slimmable networks and improved training techniques*, ICCV 2019,
    arXiv 1903.05134 (sandwich rule, distillation in place); the task's share is ours.
    """

    def __init__(
        self,
        task: Any,
        supernet: Supernet,
        smallest: Architecture,
        draw: Draw,
        count: int = 2,
        task_share: float = 0.5,
        binary: bool = False,
    ) -> None:
        super().__init__()
        self.task, self.supernet, self.smallest, self.draw = task, supernet, smallest, draw
        self.count, self.task_share, self.binary = count, task_share, binary

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            images: (B, C, H, W).
            targets: classes (B,), or shares of classes (B, classes).
        """
        whole = self.task(images, targets)
        says, losses = whole["output"].detach(), [whole["loss"]]
        for architecture in (self.smallest, *(self.draw(random) for _ in range(self.count))):
            with self.supernet.acting_as(architecture) as model:
                logits = model(images)
            losses.append(
                self.task_share * self.task.criterion(logits, targets)
                + (1 - self.task_share) * self.distance(logits, says)
            )
        return {"loss": sum(losses[1:], losses[0]) / len(losses)}

    def distance(self, logits: Tensor, says: Tensor) -> Tensor:
        """How far logits are from what the whole says, (B, classes) each; a mean over the batch."""
        if self.binary:
            return F.binary_cross_entropy_with_logits(logits, says.sigmoid())
        return F.cross_entropy(logits, says.softmax(1))

    def no_sync(self) -> Any:
        """timm's context for micro-batches that others follow in the same update."""
        return self.task.no_sync()
