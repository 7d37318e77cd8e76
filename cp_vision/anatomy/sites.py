"""The sites of a model as its user sees them: where they are, how large, what they cost.

Shapes: B batch, C channels, H x W grid, N tokens: maps are (B, N, C), (B, C, H, W) or (B, H, W, C) by a site's layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..cost.input_size import input_size_of
from ..cost.macs import format_macs, pool_macs
from ..cost.on_meta_device import meta_copy, run_on_meta
from .block import Layout, has_pool
from .call import Call
from .downsamplings import Pooling, list_poolings
from .known_families import list_blocks
from .token_grid import TokenGrid

__all__ = ["Site", "find_sites", "format_sites"]


@dataclass(frozen=True)
class Site:
    """A place for a pool.

    Attributes:
        name: module path in the base model (``blocks.5``, ``layer3.1``, ``maxpool``, ``layer2.0.downsample``).
        kind: ``"block"``: a pool acts on the block's output, or on what its attention sees; ``"stem"`` and
            ``"downsample"``: a strided pool takes the place of what makes a ConvNet's map smaller.
        layout: of the map there: ``"tokens"`` (B, N, C), ``"NCHW"`` or ``"NHWC"``.
        channels: channels there.
        grid: height and width of the pool's input, in tokens or pixels of the feature map.
        macs: cost of the module of that name, pools not counted, in MACs for one image.
        droppable: whether that module may be left out.
    """

    name: str
    kind: Literal["block", "stem", "downsample"]
    layout: Layout
    channels: int
    grid: tuple[int, int]
    macs: int
    droppable: bool


def find_sites(model: nn.Module, input_size: tuple[int, int, int] | None = None) -> list[Site]:
    """Find the sites of a model: its blocks, then its stem and down-samplings. The model is left untouched.

    Args:
        model: a timm or torchvision model.
        input_size: (channels, height, width) in pixels; None takes the model's own.

    Returns:
        The sites that are not dropped, each kind from input to output.

    Raises:
        UserError: no model, one whose blocks can't be found, or an input size that is none.
        RuntimeError: the model doesn't run on this input size.
    """
    blocks, poolings = list_blocks(model, input_size), list_poolings(model)
    size = input_size_of(model, input_size)
    trial = meta_copy(model)
    names = [*(block.name for block in blocks), *(pooling.name for pooling in poolings)]
    calls = {name: Call(trial.get_submodule(name)) for name in names}
    # A stage's down-sampling is that of its first block, whose input the pool gets.
    inputs = {p.name: Call(trial.get_submodule(_owner(p))) for p in poolings}
    try:
        run_on_meta(trial, size)
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(f"{type(model).__name__} doesn't run on an input of {size}: {error}") from error

    sites = []
    within = {_owner(pooling): pooling for pooling in poolings if pooling.block is not None}
    tokens = TokenGrid(trial) if any(block.layout == "tokens" for block in blocks) else None
    for block in blocks:
        call = calls[block.name]
        if block.layout == "tokens" and tokens is not None:
            grid = tokens.of_image(size[1], size[2])
        else:
            height, width = call.output[1:] if block.layout == "NCHW" else call.output[:2]
            grid = (height, width)
        macs = call.macs() - _pool_macs(call.module, grid)
        if (pooling := within.get(block.name)) is not None:
            _, height, width = inputs[pooling.name].input
            macs -= _pool_macs(calls[pooling.name].module, (height, width))
        sites.append(Site(block.name, "block", block.layout, block.channels, grid, macs, block.droppable))
    for pooling in poolings:
        _, height, width = inputs[pooling.name].input
        call = calls[pooling.name]
        macs = call.macs() - (_pool_macs(call.module, (height, width)) if pooling.block is None else 0)
        sites.append(Site(pooling.name, pooling.kind, "NCHW", pooling.channels, (height, width), macs, False))
    return sites


def format_sites(sites: Sequence[Site], model: Any = None) -> str:
    """Write sites as a table, one a line.

    Args:
        sites: of :func:`find_sites`.
        model: the model that they are of; a last column then says where a pool stands and what it costs.
    """
    rows = [["site", "kind", "layout", "channels", "grid", "MACs", "drop"]]
    for site in sites:
        grid, drop = f"{site.grid[0]} x {site.grid[1]}", "yes" if site.droppable else "no"
        rows.append([site.name, site.kind, site.layout, str(site.channels), grid, format_macs(site.macs), drop])
    if model is not None:
        rows[0].append("pool, its MACs")
        for row, site in zip(rows[1:], sites, strict=True):
            module = model.get_submodule(site.name)
            row.append(f"yes, {format_macs(_pool_macs(module, site.grid))}" if has_pool(module) else "no")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # Channels, grid and MACs stand on the right, as numbers do.
    lines = (
        "  ".join(c.rjust(w) if 3 <= i <= 5 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _owner(pooling: Pooling) -> str:
    return pooling.name if pooling.block is None else pooling.name.rpartition(".")[0]


def _pool_macs(module: Any, grid: tuple[int, int]) -> int:
    return pool_macs(module.context_pool, grid) if has_pool(module) else 0
