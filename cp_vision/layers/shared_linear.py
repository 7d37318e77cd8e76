"""A linear map of a feature map's channels whose gradient joins the one that the map gets elsewhere, in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["is_plain", "shared_linear"]


def is_plain(convolution: nn.Module) -> bool:
    """Whether a convolution does nothing but multiply by its weights, so that these alone may be used.

    Others have to be called: those that are pruned, reparametrised, adapted (LoRA), observed or moved by hooks.
    """
    forward = convolution._forward_hooks or convolution._forward_pre_hooks
    backward = convolution._backward_hooks or convolution._backward_pre_hooks
    return type(convolution) is nn.Conv2d and not (forward or backward or "forward" in convolution.__dict__)


def shared_linear(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Map the channels of x, and hand x on to whatever else uses it.

    Two uses of one tensor give it two gradients, which take a large array and two passes more. Here the second use
    must take the x that is returned: its gradient comes by, and this one is added to it.

    Args:
        x: (B, C, H, W), channels last.
        weight: (D, C).
        bias: (D,).

    Returns:
        (B, D, H, W), and x.
    """
    if x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _SharedLinear.apply(x, weight, bias)
    return _linear(x, weight, bias), x


class _SharedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)
        return _linear(x, weight, bias), x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_hidden: Tensor | None, for_x: Tensor | None) -> tuple[Tensor | None, ...]:
        if for_hidden is None:
            return for_x, None, None
        x, weight = ctx.saved_tensors
        # Under autocast the types may differ.
        weight = weight.to(x.dtype)
        hidden = for_hidden.permute(0, 2, 3, 1).flatten(0, 2).to(x.dtype)
        for_weight = hidden.mT @ x.permute(0, 2, 3, 1).flatten(0, 2)
        if for_x is None:
            tokens = (hidden @ weight).view(x.permute(0, 2, 3, 1).shape)
        else:
            # Nobody else has this gradient.
            tokens = for_x.permute(0, 2, 3, 1).contiguous()
            tokens.flatten(0, 2).addmm_(hidden, weight)
        return tokens.permute(0, 3, 1, 2), for_weight, hidden.sum(0)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
