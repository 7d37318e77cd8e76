"""A strided ContextPool in place of what makes a ConvNet's map smaller.

Shapes: B batch, C channels, H x W grid, s stride, D channels after a projection: maps are (B, C, H, W) and become
(B, C, H/s, W/s) in a pool, (B, D, H/s, W/s) in a down-sampling.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..anatomy.block import CHILD
from ..anatomy.downsamplings import Pooling, _stride
from ..cost.on_meta_device import meta_copy
from ..layers.mapping import is_plain
from ..shared.errors import UserError, one_line
from .pool_hooks import PoolInput

__all__ = ["replace_pooling"]


def replace_pooling(model: nn.Module, pooling: Pooling, pool: nn.Module) -> None:
    """Put a pool of the pooling's stride in its place. All keys of the state dict stay.

    - A stem's pooling is replaced.
    - A stage's first block gets pooled input and loses its strides: both of its branches see the pooled map.
    - A ConvNeXt's 2 x 2 convolution sees the pooled pixel in each of its four places.
    """
    replacement: nn.Module
    if pooling.kind == "stem":
        replacement = StridedPool(pool, _rounds_down(pooling))
    elif pooling.block is None:
        replacement = PooledProjection(pooling.module, pool)
    else:
        _unstride(pooling.block)
        shortcut = pooling.module
        # A Sequential would call the pool, too.
        replacement = Shortcut(shortcut) if isinstance(shortcut, nn.Sequential) else shortcut
        replacement.add_module(CHILD, pool)
        PoolInput(replacement).attach(pooling.block)
    replacement.train(pooling.module.training)
    model.set_submodule(pooling.name, replacement)


class StridedPool(nn.Module):
    """Stands in a stem's place of pooling, (B, C, H, W) -> (B, C, H/stride, W/stride).

    Odd sizes are rounded as by the pooling that stood there: up by a max pool with padding, down by an average
    pool without.
    """

    def __init__(self, pool: nn.Module, rounds_down: bool) -> None:
        super().__init__()
        self.rounds_down = rounds_down
        self.add_module(CHILD, pool)

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        pool: Any = self.get_submodule(CHILD)
        pooled = pool(x)
        if self.rounds_down:
            pooled = pooled[:, :, : x.shape[2] // pool.stride, : x.shape[3] // pool.stride]
        return pooled


class Shortcut(nn.Sequential):
    """The Sequential of a shortcut that keeps the pool which the whole block's input goes through."""

    def __init__(self, shortcut: nn.Sequential) -> None:
        super().__init__()
        for name, module in shortcut.named_children():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """Project the shortcut's map."""
        for name, module in self.named_children():
            if name != CHILD:
                x = module(x)
        return x


class PooledProjection(nn.Sequential):
    """A ConvNeXt's down-sampling, norm and 2 x 2 convolution, with a strided pool between the two."""

    def __init__(self, downsample: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        for name, module in downsample.named_children():
            self.add_module(name, module)
        self.add_module(CHILD, pool)

    def forward(self, x: Tensor) -> Tensor:
        """Halve a map, (B, C, H, W) -> (B, D, H // 2, W // 2)."""
        children: Any = self.children()
        *norms, conv, pool = children
        for norm in norms:
            x = norm(x)
        pooled = pool(x)[:, :, : x.shape[2] // 2, : x.shape[3] // 2]
        if not is_plain(conv):
            return conv(F.interpolate(pooled, scale_factor=2.0, mode="nearest"))
        # The four places of the kernel see one pixel, so their weights add up.
        return F.conv2d(pooled, conv.weight.sum((2, 3), keepdim=True), conv.bias)


def _rounds_down(pooling: Pooling) -> bool:
    """Whether odd sizes lose their last pixels, as seen on a map that takes no memory."""
    size = 4 * pooling.stride - 1
    try:
        with torch.no_grad():
            after = meta_copy(pooling.module)(torch.empty(1, pooling.channels, size, size, device="meta"))
    except RuntimeError as error:
        raise UserError(
            f"pool {pooling.name!r}: {type(pooling.module).__name__} is run on the meta device to see how it rounds, "
            f"and fails: {one_line(error)}"
        ) from error
    return bool(after.shape[2] == size // pooling.stride)


def _unstride(block: nn.Module) -> None:
    for name, module in list(block.named_modules()):
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif (_stride(module) or 1) > 1:
            # An average or blur pool, which did nothing but make the map smaller.
            block.set_submodule(name, nn.Identity())
