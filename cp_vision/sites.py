"""The sites of a model as its user sees them: where they are, how large, what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from timm.models import get_model_input_config
from torch import Tensor, nn

from .blocks import list_blocks
from .cost import count_module, meta_copy, pool_macs
from .hooks import has_pool

__all__ = ["Site", "find_sites"]


@dataclass(frozen=True)
class Site:
    """A place for a pool, which is also a block that may be left out.

    Attributes:
        name: module path in the base model (``blocks.5``, ``layer3.1``).
        kind: ``"tokens"`` for a transformer, ``"map"`` for a ConvNet.
        channels: channels there.
        grid: height and width in tokens or pixels of the feature map.
        macs: cost of the block itself, pools not counted, in MACs for one image.
        droppable: whether the block may be left out.
    """

    name: str
    kind: Literal["tokens", "map"]
    channels: int
    grid: tuple[int, int]
    macs: int
    droppable: bool


def find_sites(model: nn.Module, input_size: tuple[int, int, int] | None = None) -> list[Site]:
    """Find the sites of a model, from input to output. The model is left untouched.

    Args:
        model: a timm ResNet or vision transformer (ViT, DeiT).
        input_size: (channels, height, width); None takes the model's own.

    Returns:
        The sites that are not dropped.

    Raises:
        UserError: a model of another family.
        RuntimeError: the model doesn't run on this input size.
    """
    blocks = list_blocks(model)
    size = tuple(input_size or get_model_input_config(model)["input_size"])
    trial = meta_copy(model)
    seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def record(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = (tuple(args[0].shape[1:]), tuple(output.shape[1:]))

    for block in blocks:
        trial.get_submodule(block.name).register_forward_hook(partial(record, block.name))
    try:
        with torch.no_grad():
            trial(torch.empty(1, *size, device="meta", dtype=next(trial.parameters()).dtype))
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(f"{type(model).__name__} doesn't run on an input of {size}: {error}") from error

    sites = []
    for block in blocks:
        input_shape, output_shape = seen[block.name]
        module: Any = trial.get_submodule(block.name)
        grid = (output_shape[1], output_shape[2]) if block.kind == "map" else _token_grid(trial, size)
        macs = count_module(module, input_shape)
        if has_pool(module):
            macs -= pool_macs(module.context_pool, grid)
        sites.append(Site(block.name, block.kind, block.channels, grid, macs, block.droppable))
    return sites


def _token_grid(model: Any, size: tuple[int, int, int]) -> tuple[int, int]:
    height, width = model.patch_embed.dynamic_feat_size(size[1:])
    return int(height), int(width)
