"""The blocks of a timm model that cp-vision can pool after or leave out, found without running the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .errors import UserError, closest, listed

__all__ = ["Block", "DroppedBlock", "default_pools", "list_blocks", "select_blocks"]


class DroppedBlock(nn.Module):
    """Stands where a block was left out and passes its input on.

    Keeping the place keeps the names, stochastic-depth rates, feature indices and layer-decay groups of all
    other blocks as they are in the base.
    """

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Return ``x``; a block's other arguments (attention masks) have no meaning here."""
        return x


@dataclass(frozen=True)
class Block:
    """One block of a model.

    Attributes:
        name: module path in the model (``blocks.5``, ``layer3.1``).
        module: the block itself.
        kind: ``"tokens"`` for (B, N, C) with prefix tokens first, ``"map"`` for (B, C, H, W).
        channels: channels of its output.
        reduction: input pixels per output pixel.
        droppable: whether its output has the shape of its input, so that it may be left out.
    """

    name: str
    module: nn.Module
    kind: Literal["tokens", "map"]
    channels: int
    reduction: int
    droppable: bool


def list_blocks(model: nn.Module) -> list[Block]:
    """List the model's blocks from input to output, without those that were dropped.

    Args:
        model: a timm ResNet or vision transformer (ViT, DeiT), with or without pools.

    Raises:
        UserError: a model of another family.
    """
    if isinstance(model, VisionTransformer):
        blocks = [
            Block(info["module"], block, "tokens", info["num_chs"], info["reduction"], droppable=True)
            for info, block in zip(model.feature_info, model.blocks, strict=True)
        ]
    elif isinstance(model, ResNet):
        # The first block of a stage changes resolution or width, or (ResNet-18, first stage) would if the
        # stem were another one; it stays, so that each stage has at least one block.
        blocks = [
            Block(f"{info['module']}.{i}", block, "map", info["num_chs"], info["reduction"], droppable=i > 0)
            for info in model.feature_info
            if info["module"].startswith("layer")
            for i, block in enumerate(model.get_submodule(info["module"]))
        ]
    else:
        raise UserError(
            f"{type(model).__name__} models are not supported; use a timm ResNet or vision transformer "
            "(timm.list_models(module=['resnet', 'vision_transformer', 'deit']))"
        )
    return [block for block in blocks if not isinstance(block.module, DroppedBlock)]


def select_blocks(model: nn.Module, names: tuple[str, ...], what: str) -> list[Block]:
    """Return the named blocks in the order of the names.

    Args:
        model: as for :func:`list_blocks`.
        names: block names, each at most once.
        what: what the names are for, said in errors (``"pool"``, ``"drop"``).

    Raises:
        UserError: a name twice, of a dropped block, or of no block at all.
    """
    blocks = {block.name: block for block in list_blocks(model)}
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(f"{what} {name!r} is named twice; name each block once")
        if name not in blocks:
            if any(n == name and isinstance(m, DroppedBlock) for n, m in model.named_modules()):
                raise UserError(f"{what} {name!r}: this block is dropped; pools and drops can't share a block")
            raise UserError(
                f"{what} {name!r} is no block of this model{closest(name, blocks)} (blocks: {listed(blocks)})"
            )
    return [blocks[name] for name in names]


def default_pools(model: nn.Module) -> tuple[str, ...]:
    """Sites of a bare ``cp_<base>``: every block of a transformer, and of a ConvNet those at stride 16 or more.

    Finer maps are left out since exact pooling costs more there than the block itself.
    """
    return tuple(b.name for b in list_blocks(model) if b.kind == "tokens" or b.reduction >= 16)
