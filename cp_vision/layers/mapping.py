"""The mapping network of a pool, which predicts two numbers of every token.

Shapes: B batch, C channels, h hidden channels, o predicted maps (1 or 2), H x W grid.
``x_BCHW`` goes to ``hidden_BhHW`` (1 x 1 convolution, GELU) and on to ``mapped_BoHW`` (3 x 3, or 1 x 3 on a sequence).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .pointwise import pointwise

__all__ = ["hidden_width", "is_plain", "make_mapping", "run_mapping"]


def hidden_width(channels: int) -> int:
    """Hidden width of the mapping network: narrow enough that it stays below 1 % of a ResNet-50 block."""
    return max(2, channels // 128)


def make_mapping(channels: int, hidden: int, outputs: int, kernel: tuple[int, int]) -> nn.Sequential:
    """Make a mapping network, (B, channels, H, W) -> (B, outputs, H, W).

    Args:
        channels: C of its input.
        hidden: channels between its two convolutions.
        outputs: maps that it predicts.
        kernel: height and width of its second convolution, both odd.
    """
    height, width = kernel
    last = nn.Conv2d(hidden, outputs, kernel, padding=(height // 2, width // 2))
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.GELU(), last)


def run_mapping(mapping: Any, x_BCHW: Tensor) -> Tensor:
    """Run a mapping network, (B, C, H, W) -> (B, o, H, W)."""
    first, activation, last = mapping
    hidden_BhHW = pointwise(x_BCHW, first.weight.flatten(1), first.bias) if is_plain(first) else first(x_BCHW)
    return last(activation(hidden_BhHW))


def is_plain(convolution: nn.Module) -> bool:
    """Whether a convolution only multiplies by its weights, so that they may be used without calling it.

    Convolutions that are pruned, reparametrised, adapted (LoRA), observed or moved by hooks have to be called.
    """
    forward = convolution._forward_hooks or convolution._forward_pre_hooks
    backward = convolution._backward_hooks or convolution._backward_pre_hooks
    return type(convolution) is nn.Conv2d and not (forward or backward or "forward" in convolution.__dict__)
