"""Running a copy of a model that takes no memory."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["meta_copy", "run_on_meta"]


def meta_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device without copying its weights first."""
    memo: dict[int, torch.Tensor] = {}
    # Under inference mode torch calls operators by other names, which nobody counts.
    with torch.inference_mode(False):
        for parameter in model.parameters():
            memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for buffer in model.buffers():
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
        return copy.deepcopy(model, memo).eval()


def run_on_meta(trial: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Run a model that is on the meta device on one image of this size, (channels, height, width)."""
    with torch.inference_mode(False), torch.no_grad():
        trial(torch.empty(1, *input_size, device="meta", dtype=next(trial.parameters(), torch.empty(0)).dtype))
