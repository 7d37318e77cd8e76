"""The blocks of a model: what they are, how they are named, and what stands where one was left out.

Shapes: B batch, N tokens, C channels, H x W grid: a block gives (B, N, C), (B, C, H, W) or (B, H, W, C).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

__all__ = ["CHILD", "Attention", "Block", "DroppedBlock", "Layout", "has_pool"]

# How a block's output holds its channels: (B, N, C) with prefix tokens first, (B, C, H, W) or (B, H, W, C).
Layout = Literal["tokens", "NCHW", "NHWC"]

# The child of a block that gives or takes what attention sees, and which of both.
Attention = tuple[str, Literal["input", "output"]]


class DroppedBlock(nn.Module):
    """Stands where a block was left out and passes its input on.

    Keeping the place keeps the names, stochastic-depth rates and feature indices of all other blocks as they are in
    the base. timm numbers layers for ``layer_decay`` by their parameters, so that its ``create_optimizer_v2`` counts no
    dropped block; ``cp-train`` and ``cp-search`` give each block the rate that it has in the base.
    """

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Return ``x``; a block's other arguments (attention masks) have no meaning here."""
        return x

    def set_input_size(self, *args: object, **kwargs: object) -> None:
        """Do nothing: a stage of a Swin transformer tells every block its new size."""


@dataclass(frozen=True)
class Block:
    """One block of a model.

    Attributes:
        name: module path in the model (``blocks.5``, ``layer3.1``).
        module: the block itself.
        layout: how its output is laid out.
        channels: channels of its output.
        reduction: input pixels per output pixel.
        droppable: whether its output has the shape of its input, so that it may be left out.
        attention: for mode ``pre_attn``, where what attention sees passes (``("norm1", "output")``); None where
            there is no such place.
        prefix: tokens before those of the grid (class and register tokens).
    """

    name: str
    module: nn.Module
    layout: Layout
    channels: int
    reduction: int
    droppable: bool
    attention: Attention | None = None
    prefix: int = 0

    @property
    def transformer(self) -> bool:
        """Whether the block is a transformer's.

        Where channels come first it counts as a ConvNet's: what is called attention there mostly weighs channels.
        """
        attention = getattr(self.module, "attn", nn.Identity())
        has_attention = isinstance(attention, nn.Module) and not isinstance(attention, nn.Identity)
        return self.layout == "tokens" or (self.layout == "NHWC" and has_attention)


# The pool is a child of its block under this name, hence the keys ``<site>.context_pool.*``.
CHILD = "context_pool"


def has_pool(module: nn.Module) -> bool:
    """Whether a pool stands at this block or pooling."""
    return hasattr(module, CHILD)
