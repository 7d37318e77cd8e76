"""Where a ConvNet makes its maps smaller, and a strided ContextPool in place of that.

The paper says that in ConvNets ContextPool replaces the conventional pooling function. A stem's max pool is one;
reading the strides of a stage's first block as one, too, is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.models.convnext import ConvNeXt
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import ResNet as TorchvisionResNet

from .hooks import CHILD, PoolInput, has_pool
from .meta import meta_copy
from .shared_linear import is_plain

__all__ = ["Pooling", "list_poolings", "replace_pooling"]


@dataclass(frozen=True)
class Pooling:
    """A place where the map becomes smaller.

    Attributes:
        name: module path (``maxpool``, ``layer2.0.downsample``, ``stages.1.downsample``).
        module: what stands there.
        kind: ``"stem"`` or ``"downsample"``.
        channels: channels of the map that is made smaller.
        stride: by which factor, in height and in width.
        block: the first block of the stage, whose strides are meant; None for a stem, and where the
            down-sampling is a module before the blocks.
    """

    name: str
    module: nn.Module
    kind: Literal["stem", "downsample"]
    channels: int
    stride: int
    block: nn.Module | None = None


def list_poolings(model: nn.Module) -> list[Pooling]:
    """List the places of a ConvNet where a strided pool can stand, those where one stands already among them.

    A model of another family than ResNet, RegNet and ConvNeXt has none; nor has a stage that keeps its
    resolution (``output_stride``), or a stem whose pooling is a convolution.
    """
    return list(_find(model))


def _find(model: Any) -> Iterator[Pooling]:
    if isinstance(model, ResNet | TorchvisionResNet):
        if has_pool(model.maxpool):
            pool = model.maxpool.context_pool
            yield Pooling("maxpool", model.maxpool, "stem", pool.channels, pool.stride)
        elif (stride := _total_stride(model.maxpool)) > 1 and not any(True for _ in model.maxpool.parameters()):
            last = [m for m in model.conv1.modules() if isinstance(m, nn.Conv2d)][-1]
            yield Pooling("maxpool", model.maxpool, "stem", last.out_channels, stride)
        for stage in ("layer2", "layer3", "layer4"):
            yield from _first_block(model, f"{stage}.0")
    elif isinstance(model, RegNet):
        for stage in ("s1", "s2", "s3", "s4"):
            yield from _first_block(model, f"{stage}.b1")
    elif isinstance(model, ConvNeXt):
        for i, stage in enumerate(model.stages):
            conv = next((m for m in stage.downsample.modules() if isinstance(m, nn.Conv2d)), None)
            if conv is not None and conv.stride == conv.kernel_size == (2, 2):
                yield Pooling(f"stages.{i}.downsample", stage.downsample, "downsample", conv.in_channels, 2)


def _first_block(model: Any, name: str) -> Iterator[Pooling]:
    try:
        shortcut = model.get_submodule(f"{name}.downsample")
    except AttributeError:
        # None, or its stage was cut off.
        return
    conv = next((m for m in shortcut.modules() if isinstance(m, nn.Conv2d)), None)
    if conv is None:
        return
    stride = shortcut.context_pool.stride if has_pool(shortcut) else _total_stride(shortcut)
    if stride > 1:
        block = model.get_submodule(name)
        yield Pooling(f"{name}.downsample", shortcut, "downsample", conv.in_channels, stride, block)


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
        *norms, conv, pool = self.children()
        for norm in norms:
            x = norm(x)
        pooled = pool(x)[:, :, : x.shape[2] // 2, : x.shape[3] // 2]
        if not is_plain(conv):
            return conv(F.interpolate(pooled, scale_factor=2.0, mode="nearest"))
        # The four places of the kernel see one pixel, so their weights add up.
        return F.conv2d(pooled, conv.get_parameter("weight").sum((2, 3), keepdim=True), getattr(conv, "bias", None))


def _total_stride(module: nn.Module) -> int:
    """Product of the strides along a chain of modules."""
    total = 1
    for part in module.modules():
        if (stride := _stride(part)) is not None:
            total *= stride
    return total


def _stride(module: nn.Module) -> int | None:
    stride = None if any(True for _ in module.children()) else getattr(module, "stride", None)
    return stride[0] if isinstance(stride, tuple) else stride


def _rounds_down(pooling: Pooling) -> bool:
    """Whether odd sizes lose their last pixels, as seen on a map that takes no memory."""
    size = 4 * pooling.stride - 1
    with torch.no_grad():
        after = meta_copy(pooling.module)(torch.empty(1, pooling.channels, size, size, device="meta"))
    return bool(after.shape[2] == size // pooling.stride)


def _unstride(block: nn.Module) -> None:
    for name, module in list(block.named_modules()):
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif (_stride(module) or 1) > 1:
            # An average or blur pool, which did nothing but make the map smaller.
            block.set_submodule(name, nn.Identity())
