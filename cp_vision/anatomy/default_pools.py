"""Where a bare ``cp_<base>`` pools."""

from __future__ import annotations

from torch import nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from .known_families import list_blocks

__all__ = ["default_pools", "is_read_by_token"]


def default_pools(model: nn.Module, mode: str = "gated") -> tuple[str, ...]:
    """Sites of a bare ``cp_<base>``: after every block of a transformer, and of a ConvNet at stride 16 or more.

    A ConvNet's finer maps are left out, since a pool takes longer there than the block itself; and of a ViT that
    classifies by its class token the last block, after which nothing looks at the other tokens. A feature extractor
    has the same pools as the classifier, whose weights it takes.

    Args:
        model: the model.
        mode: how the pools act; ``"pre_attn"`` ones act in the last block, too.
    """
    blocks = list_blocks(model)
    if mode != "pre_attn" and is_read_by_token(model):
        blocks = blocks[:-1]
    return tuple(block.name for block in blocks if block.transformer or block.reduction >= 16)


def is_read_by_token(model: nn.Module) -> bool:
    """Whether of what its last block gives the class token alone is looked at; raises as :func:`list_blocks`."""
    if not isinstance(model, TorchvisionViT) and getattr(model, "global_pool", None) != "token":
        return False
    last = list_blocks(model)[-1]
    # CaiT's blocks have no class token; it joins them after the last one, and looks at all of them. Of PiT's stages
    # the later ones aren't found.
    coarsest = max((info["reduction"] for info in getattr(model, "feature_info", ())), default=0)
    return last.layout == "tokens" and last.prefix > 0 and last.reduction >= coarsest
