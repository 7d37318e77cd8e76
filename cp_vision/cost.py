"""Cost in MACs: one multiply-add counts one, the figure that papers print as FLOPs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from ptflops import get_model_complexity_info
from timm import create_model
from timm.models import get_model_input_config
from torch import nn
from torchvision.models.resnet import ResNet as TorchvisionResNet
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from .errors import UserError
from .functional import coarse_grid, uses_linear
from .layers import ContextPool2d
from .linear import count_linear_scales, linear_macs
from .meta import meta_copy

__all__ = ["count_macs", "count_module", "default_input_size", "format_macs", "known_input_size", "pool_macs"]


def count_macs(model: nn.Module | str, input_size: tuple[int, int, int] | None = None) -> int:
    """Count the MACs of one image, pools included.

    Counted through ptflops on the meta device, so it takes a fraction of a second and no memory: products,
    convolutions and their biases; not norms, activations or element-wise sums.

    Args:
        model: a model, which is left untouched, or a name that ``timm.create_model`` knows.
        input_size: (channels, height, width) in pixels; None takes the model's own.

    Returns:
        MACs for a batch of one.

    Raises:
        UserError: an input size that is none, or pools or drops in the name's arguments that can't be.
        RuntimeError: timm doesn't know the name, or the model doesn't run on this input size.
        FileNotFoundError: a ``local-dir:`` name without that folder.
    """
    if isinstance(model, str):
        with torch.device("meta"):
            trial = create_model(model)
    else:
        trial = meta_copy(model)
    return count_module(trial, known_input_size(trial, input_size))


def known_input_size(model: Any, size: Any) -> tuple[int, int, int]:
    """The size itself, or the model's own where it is None.

    Raises:
        UserError: it is not (channels, height, width), each a whole number above 0.
    """
    if size is None:
        own = _own_input_size(model)
        if own is None:
            raise UserError(f"{type(model).__name__} doesn't say the size of its images; give input_size=(3, 224, 224)")
        return own
    if not isinstance(size, Sequence) or len(size) != 3 or not all(isinstance(one, int) and one > 0 for one in size):
        raise UserError(f"input size {size!r} must be (channels, height, width), such as (3, 224, 224)")
    channels, height, width = size
    return channels, height, width


def default_input_size(model: Any) -> tuple[int, int, int]:
    """The image size that a model is made for, (channels, height, width); that of most where it doesn't say."""
    return _own_input_size(model) or _size_by_timm(_inner_model(model))


def _own_input_size(model: Any) -> tuple[int, int, int] | None:
    model = _inner_model(model)
    if isinstance(model, TorchvisionViT):
        return (_first_channels(model.conv_proj), model.image_size, model.image_size)
    if isinstance(model, TorchvisionResNet):
        return (_first_channels(model.conv1), 224, 224)
    if hasattr(model, "pretrained_cfg"):
        return _size_by_timm(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return (_first_channels(model.patch_embed), *size) if size else None


def _size_by_timm(model: Any) -> tuple[int, int, int]:
    channels, height, width = get_model_input_config(model)["input_size"]
    return (channels, height, width)


def _inner_model(model: Any) -> Any:
    """What wrappers hold: DistributedDataParallel, averages of weights, torch.compile."""
    for name in ("module", "_orig_mod"):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module) and not hasattr(model, "pretrained_cfg"):
            return _inner_model(inner)
    return model


def _first_channels(module: nn.Module) -> int:
    """Channels that the first convolution takes."""
    return next((part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)), 3)


def pool_macs(pool: ContextPool2d, grid: tuple[int, int]) -> int:
    """Cost of one pool in MACs, in closed form: its mapping network and the product with its weights.

    Args:
        pool: the pool.
        grid: height and width of its input, in pixels of the feature map.

    Returns:
        ``N (C h + h) + N o (k h + 1)`` and, where the backend is exact, ``M N C``, for N input and M output
        tokens, C channels, hidden width h, o predicted maps and k kernel taps. Where the backend is linear, the
        filters of its scales and ``M w (C + 1)``, for windows of w cells, stand in place of ``M N C``.
    """
    tokens = grid[0] * grid[1]
    height, width = coarse_grid(grid, pool.stride)
    if pool.backend == "linear" or (pool.backend == "auto" and uses_linear(grid, pool.stride)):
        count = count_linear_scales(grid, pool.stride, pool.largest_support(grid))
        macs = linear_macs(pool.channels, grid, height * width, count)
    else:
        macs = height * width * tokens * pool.channels
    if pool.mapping is not None:
        macs += tokens * sum(parameter.numel() for parameter in pool.mapping.parameters())
    return macs


def count_module(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the MACs of a throw-away module on the meta device (ptflops leaves its hooks in it).

    Args:
        module: any module on the meta device.
        input_shape: shape of its input without the batch dimension.

    Raises:
        RuntimeError: the module doesn't run on this input.
    """
    printed = io.StringIO()
    # ptflops prints what goes wrong and returns None.
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), torch.no_grad():
        macs, _ = get_model_complexity_info(
            module, input_shape, backend="aten", as_strings=False, print_per_layer_stat=False
        )
    if macs is None:
        reason = printed.getvalue().strip().splitlines()[-1]
        raise RuntimeError(f"{type(module).__name__} doesn't run on an input of {input_shape}: {reason}")
    return int(macs)


def format_macs(count: float) -> str:
    """Write MACs, or parameters, for people: three digits and a unit."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g}{unit}" if count < 1000 * factor else f"{count / factor:.0f}{unit}"
    return f"{count:.0f}"
