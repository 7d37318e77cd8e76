"""How a map (B, C, H, W) lies in memory."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["memory_format"]


def memory_format(x_BCHW: Tensor) -> torch.memory_format:
    """Channels last where the map is that and not planar as well, otherwise planar."""
    last = x_BCHW.is_contiguous(memory_format=torch.channels_last) and not x_BCHW.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
