"""What the pools of ``benchmarks/paper_form.py`` have learned: as it is noted after a training."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from benchmarks.fashion_mnist import resize
from cp_vision import ContextPool2d
from cp_vision.commands.support_maps import support_maps

__all__ = ["DRAWN", "learned"]

_IMAGES = 100
# Test images over which supports are drawn: a boot, a pullover, a bag.
DRAWN = (0, 1, 18)


def learned(model: nn.Module, images: Tensor, size: int, drawn: bool) -> str:
    """Supports of a model's context pools, over the first test images; empty where it has none.

    Args:
        model: in evaluation mode.
        images: (N, 1, H, W), normalised.
        size: side of the images that the model sees, in pixels.
        drawn: whether the supports of every token of the images ``DRAWN`` are noted, too.

    Returns:
        JSON: by site the quartiles of the supports, and those of every token, image by image and row by row; all in
        pixels of the images that the model sees.
    """
    if not any(isinstance(module, ContextPool2d) for module in model.modules()):
        return ""
    found = [support_maps(model, image[None]) for image in resize(images[:_IMAGES], size)]
    noted = {}
    for maps in zip(*found, strict=True):
        quartiles = torch.cat([each.sigma.flatten() for each in maps]).quantile(torch.tensor([0.25, 0.5, 0.75]))
        tokens = [[[round(float(s), 1) for s in row] for row in maps[n].sigma] for n in DRAWN if drawn]
        noted[maps[0].site] = {"quartiles": [round(float(q), 2) for q in quartiles], "tokens": tokens}
    return json.dumps(noted)
