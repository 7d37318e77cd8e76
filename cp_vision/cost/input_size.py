"""The image size that a model is made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import get_model_input_config
from torch import nn
from torchvision.models.resnet import ResNet as TorchvisionResNet
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from ..shared.errors import UserError

__all__ = ["default_input_size", "known_input_size"]


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
