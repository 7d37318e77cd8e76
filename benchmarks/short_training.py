"""Trainings of a few minutes on images in memory."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor, nn

from benchmarks.fashion_mnist import InMemoryLoader
from cp_vision.recipes import Recipe, Trainer, single_process
from cp_vision.recipes.data.seeding import seed_all

__all__ = ["train"]


def train(
    name: str, model: nn.Module, images: Tensor, targets: Tensor, size: int, recipe: Recipe, updates: int | None = None
) -> None:
    """Train a model in place by a recipe, printing loss and processor time after each epoch.

    Args:
        name: what the lines begin with.
        model: (B, C, size, size) -> (B, classes).
        images: (N, C, H, W), normalised.
        targets: (N,).
        size: side of the images that it sees, in pixels.
        recipe: the recipe.
        updates: end an epoch after so many, which see images drawn anew; without, it sees all images.
    """
    seed_all(recipe.seed)
    loader: Any = InMemoryLoader(images, targets, size, recipe)
    loader.updates = updates or loader.updates
    trainer = Trainer(model, recipe, loader, single_process())
    begin = time.process_time()
    for epoch in range(trainer.epochs):
        loss = trainer.train_epoch()
        spent = time.process_time() - begin
        print(f"{name}: epoch {epoch + 1} of {trainer.epochs}, loss {loss:.3f}, {spent:.0f} s of a core", flush=True)
