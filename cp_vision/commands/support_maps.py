"""What a model's pools look at: the support of every token, for one image.

Shapes: C channels, H x W pixels of the image (1, C, H, W); h x w output tokens of a pool, supports (h, w) in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform, resolve_input_data_config
from torch import Tensor, nn

from ..anatomy.block import CHILD
from ..layers.context_pool_2d import ContextPool2d
from ..shared.errors import UserError, one_line
from ..shared.image_modes import in_colours

__all__ = ["SupportMap", "open_image", "support_maps"]


@dataclass(frozen=True)
class SupportMap:
    """The supports of one pool.

    Attributes:
        site: where the pool stands.
        sigma: support of every output token in pixels of the image, (height, width).
        gate: mean size of the gate, None where the pool has none. At zero the pool changes nothing.
    """

    site: str
    sigma: Tensor
    gate: float | None


def open_image(path: Path, model: Any) -> tuple[Tensor, Tensor]:
    """Read an image as the model sees it in evaluation.

    Args:
        path: an image file.
        model: a timm model; its data config says size, crop, mean and standard deviation.

    Returns:
        The model's input (1, C, H, W), and for the eye the same with values in [0, 1], (H, W, C).

    Raises:
        UserError: no readable image.
    """
    config = resolve_input_data_config(model)
    channels = config["input_size"][0]
    if channels not in (1, 3):
        raise UserError(f"this model's images have {channels} channels; supports are drawn over grey or colour images")
    try:
        with Image.open(path) as file:
            image = in_colours(file, "L" if channels == 1 else "RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"image {str(path)!r} can't be read: {reason}; give a JPEG or PNG file") from error
    pixels: Any = create_transform(**config, is_training=False)(image)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    return pixels[None], (pixels * std + mean).clamp(0, 1).permute(1, 2, 0)


@torch.inference_mode()
def support_maps(model: nn.Module, image: Tensor) -> list[SupportMap]:
    """Run the model on an image and note what its pools predict there.

    Args:
        model: a model with pools, in evaluation mode.
        image: (1, C, H, W).

    Raises:
        UserError: a model without pools.
    """
    seen: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, ContextPool2d):
            handles.append(module.register_forward_hook(partial(_note, seen, name)))
    if not handles:
        raise UserError("this model has no pools; name a cp_ model, or one that pools were inserted into")
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    maps = []
    for name, tokens in seen.items():
        pool: Any = model.get_submodule(name)
        _, sigma = pool.weight_and_support(tokens)
        # From pixels of the feature map to pixels of the image.
        scale = image.shape[2] / tokens.shape[2]
        gate = None if pool.gate is None else float(pool.gate.abs().mean())
        maps.append(SupportMap(name.removesuffix(f".{CHILD}"), sigma[0] * scale, gate))
    return maps


def _note(seen: dict[str, Tensor], name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    seen[name] = args[0]
