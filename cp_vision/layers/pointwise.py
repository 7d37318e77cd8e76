"""A 1 x 1 convolution as the matrix product that the map's memory format allows.

Shapes: B batch, C input and O output channels, H x W grid.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["pointwise"]

# With more outputs than a sixteenth of the channels a planar map is convolved: the product's gradients have a copy of
# the weights for every image.
_NARROW = 16


def pointwise(x_BCHW: Tensor, weight_OC: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Mix the channels of every pixel: ``y_o = sum_c weight_oc x_c + bias_o``.

    With channels last a linear layer over the pixels is faster than the convolution, and so is, of planar maps with
    few outputs, a product for every image: its backward pass takes three quarters of the time, and compiled, where
    the convolution would copy the map to channels last, all of it a fifth.

    Args:
        x_BCHW: the map, with C channels, unchecked.
        weight_OC: weights.
        bias_O: None adds nothing.

    Returns:
        (B, O, H, W), in the memory format of the map.
    """
    if x_BCHW.stride(1) == 1:
        return F.linear(x_BCHW.permute(0, 2, 3, 1), weight_OC, bias_O).permute(0, 3, 1, 2)
    if weight_OC.shape[0] * _NARROW > weight_OC.shape[1]:
        return F.conv2d(x_BCHW, weight_OC[:, :, None, None], bias_O)
    # A product of the weights with the whole batch would copy the map.
    weight, tokens = weight_OC.expand(x_BCHW.shape[0], -1, -1), x_BCHW.flatten(2)
    y = torch.bmm(weight, tokens) if bias_O is None else torch.baddbmm(bias_O[:, None], weight, tokens)
    return y.unflatten(2, x_BCHW.shape[2:])
