"""Where a ConvNet makes its maps smaller, (B, C, H, W) -> (B, D, H/stride, W/stride).

A strided ContextPool can stand there: the paper says that in ConvNets ContextPool replaces the conventional pooling
function. A stem's max pool is one; reading the strides of a stage's first block as one, too, is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from timm.models.convnext import ConvNeXt
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from torch import nn
from torchvision.models.resnet import ResNet as TorchvisionResNet

from .block import has_pool

__all__ = ["Pooling", "list_poolings"]


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
