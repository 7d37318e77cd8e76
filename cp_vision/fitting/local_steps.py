"""Training one stand-in against what it replaces, weights and supports of its pools included.

Shapes: B images, C channels: inputs and outputs are in the layout of what is replaced.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..anatomy.replacement import Replacement

__all__ = ["train_locally"]

_BATCH = 16
_RATE = 3e-3


def train_locally(replacement: Replacement, inputs: Tensor, outputs: Tensor, steps: int, seed: int = 0) -> None:
    """Take steps of Adam, its rate falling along a cosine, towards the least squared error.

    Args:
        replacement: changed in place.
        inputs: of what is replaced, (B, ...).
        outputs: what it should give, before the activation behind it, (B, ...).
        steps: how many batches of 16 images to learn from.
        seed: for the order of images.
    """
    parameters = [parameter for parameter in replacement.parameters() if parameter.requires_grad]
    if not parameters:
        return
    optimizer = torch.optim.Adam(parameters, lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    scale = (outputs - inputs if replacement.stand_in.residual else outputs).float().var().clamp_min(1e-12)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < min(_BATCH, len(inputs)):
            order = torch.randperm(len(inputs), generator=generator)
        chosen, order = order[:_BATCH], order[_BATCH:]
        loss = (replacement.before_act(inputs[chosen]) - outputs[chosen]).float().square().mean() / scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
