"""Running a copy of a model that takes no memory."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["meta_copy", "run_on_meta"]


def meta_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device without copying its weights first."""
    memo: dict[int, torch.Tensor] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(model, memo).eval()


def run_on_meta(trial: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Run a model that is on the meta device on one image of this size, (channels, height, width)."""
    with torch.no_grad():
        trial(torch.empty(1, *input_size, device="meta", dtype=next(trial.parameters(), torch.empty(0)).dtype))
