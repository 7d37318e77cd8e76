"""How a pool acts at a block: forward hooks, so that no forward of the base's is copied or replaced.

Shapes: B batch, C channels, H x W grid. A block's output is ``x_BCHW``, ``x_BHWC``, or tokens (B, prefix + H W, C),
whose prefix (class and register tokens) passes by the pool. Pools take and give ``x_BCHW``.

Each hook is a plain picklable object. A deep copy or pickle of the model carries its hooks along, and the
modules that they refer to stay those of the copy. Each keeps its handle: torch numbers hooks anew in each process, and
a handle that is unpickled takes its number, so that no later hook gets the same number and replaces this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy.block import CHILD, Block, Layout
from ..anatomy.token_grid import TokenGrid, as_map

__all__ = ["PoolInput", "PooledSequential", "attach_pools"]


class PooledSequential(nn.Sequential):
    """A Sequential that leaves its pool to the hook."""

    def forward(self, x: Any) -> Any:
        """Run all children but the pool."""
        for name, module in self.named_children():
            if name != CHILD:
                x = module(x)
        return x


def attach_pools(model: nn.Module, pools: Sequence[tuple[Block, nn.Module, bool]]) -> None:
    """Make each pool a child of its block, acting on the block's output or on what its attention sees.

    Args:
        model: the model that the blocks belong to.
        pools: block, its pool, and whether what attention sees is pooled in place of the output.
    """
    tokens = TokenGrid(model) if any(block.layout == "tokens" for block, _, _ in pools) else None
    for block, pool, before_attention in pools:
        if type(block.module) is nn.Sequential:
            # Somebody's wrapper of a block, with all that it holds and that hangs on it.
            block.module.__class__ = PooledSequential
        block.module.add_module(CHILD, pool)
        child, side = block.attention if before_attention and block.attention else ("", "output")
        place = block.module.get_submodule(child)
        if child:
            # Tracers of torch.fx go by this name: a module of torch.nn would be one node with its hooks, in a graph
            # that doesn't hold the pool.
            place.__module__ = __name__
        if side == "input":
            PoolInput(block.module, block.layout, tokens, block.prefix).attach(place)
        else:
            PoolOutput(block.module, block.layout, tokens, block.prefix).attach(place)


class _Pool:
    """Pools a tensor of any layout with the child of a module."""

    def __init__(self, owner: Any, layout: Layout = "NCHW", tokens: TokenGrid | None = None, prefix: int = 0) -> None:
        self.owner, self.layout, self.tokens, self.prefix = owner, layout, tokens, prefix

    def pool(self, x: Tensor) -> Tensor:
        pool = self.owner.context_pool
        if self.layout == "NCHW":
            return pool(x)
        if self.layout == "NHWC" or self.tokens is None:
            return pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # Class and register tokens pass through untouched.
        prefix, patches = x.tensor_split([self.prefix], 1)
        pooled = pool(as_map(patches, self.tokens.now()))
        return torch.cat([prefix, pooled.flatten(2).mT], 1)


class PoolOutput(_Pool):
    """Forward hook: the module's output, pooled."""

    def attach(self, module: nn.Module) -> None:
        """Act at this module from now on."""
        self.handle = module.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return self.pool(output)


class PoolInput(_Pool):
    """Forward pre-hook: the module sees its first argument pooled."""

    def attach(self, module: nn.Module) -> None:
        """Act at this module from now on."""
        self.handle = module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pool the first argument and leave the others."""
        return (self.pool(args[0]), *args[1:])
