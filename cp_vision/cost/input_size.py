"""The image size that a model is made for: one rule, for counting, finding and changing alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import get_model_input_config
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from ..shared.errors import UserError

__all__ = ["input_size_of"]

# torchvision's classifiers don't know it, but were all made for this size or run on it.
_TORCHVISION = (224, 224)


def input_size_of(model: Any, size: Any = None) -> tuple[int, int, int]:
    """The size of a model's images, (channels, height, width) in pixels.

    Args:
        model: any model, also one in a wrapper (DistributedDataParallel, averages of weights, torch.compile).
        size: a size to take in place of the model's own.

    Returns:
        ``size`` where it is given, else what the model says.

    Raises:
        UserError: ``size`` is not three whole numbers above 0, or there is none and the model doesn't say its own.
    """
    if size is not None:
        if isinstance(size, Sequence) and len(size) == 3 and all(isinstance(one, int) and one > 0 for one in size):
            return size[0], size[1], size[2]
        raise UserError(f"input size {size!r} must be (channels, height, width), such as (3, 224, 224)")
    model = _inner_model(model)
    if isinstance(getattr(model, "pretrained_cfg", None), Mapping):
        channels, height, width = get_model_input_config(model)["input_size"]
        return channels, height, width
    if isinstance(model, TorchvisionViT):
        return _first_channels(model), model.image_size, model.image_size
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if type(model).__module__.startswith("torchvision.models."):
        own = _TORCHVISION
    if own is None:
        raise UserError(
            f"{type(model).__name__} doesn't say the size of its images; give input_size=(3, 224, 224), or set "
            "model.pretrained_cfg = {'input_size': (3, 224, 224)}"
        )
    height, width = own
    return _first_channels(model), height, width


def _inner_model(model: Any) -> Any:
    """What a wrapper holds."""
    for name in ("module", "_orig_mod"):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module) and not hasattr(model, "pretrained_cfg"):
            return _inner_model(inner)
    return model


def _first_channels(model: nn.Module) -> int:
    """Channels that the first convolution takes."""
    return next((part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d)), 3)
