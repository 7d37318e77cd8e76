"""How a pool acts inside a block: forward hooks, so that no forward of timm's is copied or replaced.

Each hook is a plain picklable object. A deep copy or pickle of the model carries its hooks along, and the
modules that they refer to stay those of the copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

__all__ = ["attach_pools", "has_pool"]

# The pool is a child of its block under this name, hence the keys ``<site>.context_pool.*``.
CHILD = "context_pool"


def has_pool(block: nn.Module) -> bool:
    """Whether a pool stands at this block."""
    return hasattr(block, CHILD)


def attach_pools(model: nn.Module, pools: Sequence[tuple[Any, nn.Module]], before_attention: bool) -> None:
    """Make each pool a child of its block, acting on the block's output or on what its attention sees.

    Args:
        model: the model that the blocks belong to.
        pools: pairs of block and pool.
        before_attention: for a vision transformer, pool what attention sees.
    """
    tokens = TokenGrid(model) if isinstance(model, VisionTransformer) else None
    for block, pool in pools:
        block.add_module(CHILD, pool)
        if tokens is None:
            block.register_forward_hook(_pool_map)
        elif before_attention:
            block.attn.register_forward_pre_hook(_PoolBeforeAttention(block, tokens))
        else:
            block.register_forward_hook(_PoolTokens(tokens))


class TokenGrid:
    """Where the tokens of a vision transformer lie: prefix tokens first, then a grid of patches.

    The patch embedding knows the grid, unless the model takes images of any size; then this object, as the
    embedding's forward hook, reads the grid off its output.
    """

    def __init__(self, model: VisionTransformer) -> None:
        self.patch_embed = model.patch_embed
        self.num_prefix_tokens = model.num_prefix_tokens
        self.grid: tuple[int, int] | None = None
        if model.dynamic_img_size:
            self.patch_embed.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        # With images of any size timm's patch embedding gives (B, H, W, C).
        self.grid = (output.shape[1], output.shape[2])

    def pool(self, pool: nn.Module, tokens: Tensor) -> Tensor:
        """Pool the patches of ``tokens`` (B, N, C); class and register tokens pass through untouched."""
        prefix, patches = tokens.tensor_split([self.num_prefix_tokens], 1)
        pooled = pool(patches.mT.unflatten(2, self.grid or self.patch_embed.grid_size))
        return torch.cat([prefix, pooled.flatten(2).mT], 1)


def _pool_map(block: Any, args: Any, output: Tensor) -> Tensor:
    return block.context_pool(output)


class _PoolTokens:
    def __init__(self, tokens: TokenGrid) -> None:
        self.tokens = tokens

    def __call__(self, block: Any, args: Any, output: Tensor) -> Tensor:
        return self.tokens.pool(block.context_pool, output)


class _PoolBeforeAttention:
    def __init__(self, block: Any, tokens: TokenGrid) -> None:
        self.block, self.tokens = block, tokens

    def __call__(self, attention: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.tokens.pool(self.block.context_pool, args[0]), *args[1:])
