"""Finding the blocks of a model of any other family, by running it once on the meta device.

This search is our own: a block is what one tensor passes through, once, as a member of a row of modules.

Shapes: B batch, C channels, H x W grid: a block maps (B, C, H, W), (B, H, W, C) or tokens (B, prefix + H W, C).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from timm.models.regnet import RegStage
from torch import Tensor, nn

from ..cost.input_size import input_size_of
from ..cost.on_meta_device import meta_copy, run_on_meta
from ..shared.errors import UserError, one_line
from .block import Block, Layout
from .replacement import Replacement
from .token_grid import patch_embedding

__all__ = ["discover_blocks", "run_trial"]

# Rows of modules, and the names under which a stage keeps its row; RegNet's stages, of which features_only leaves no
# RegNet, are rows under a class of their own.
_ROWS = (nn.Sequential, nn.ModuleList, RegStage)
_ROW_NAMES = ("blocks", "layers", "stages", "transformer_encoder")
_ROWS_OF_STAGES = tuple(f".{name}." for name in _ROW_NAMES)
# Parts of a model before and after its blocks.
_NOT_BLOCKS = ("stem", "conv_stem", "patch_embed", "head", "classifier", "conv_head", "pre_logits")


def discover_blocks(model: nn.Module, input_size: tuple[int, int, int] | None = None) -> list[Block]:
    """List the blocks of a model, from input to output.

    Args:
        model: the model.
        input_size: (channels, height, width) in pixels; None takes the model's own.

    Raises:
        UserError: the model doesn't say its size, doesn't run on the meta device, or has no such blocks.
    """
    name, size = type(model).__name__, input_size_of(model, input_size)
    trial = meta_copy(model)
    seen: dict[str, list[Any]] = {}
    for path in _candidates(trial, ""):
        seen[path] = []
        trial.get_submodule(path).register_forward_hook(partial(_record, seen[path]))
    run_trial(trial, size, f"{name} models are not supported")
    maps = [call[1].shape[1:] for calls in seen.values() for call in calls if getattr(call[1], "ndim", 0) == 4]
    layouts = Counter(layout for shape in maps if (layout := _layout(shape, size)) is not None)
    usual: Layout = max(layouts, key=lambda layout: layouts[layout], default="NCHW")
    blocks = [_block(model, path, calls, size, usual) for path, calls in seen.items()]
    found = [block for block in blocks if block is not None]
    if not found:
        raise UserError(
            f"{name} models are not supported: none of their blocks maps one grid of tokens or pixels to another; "
            "ResNets, RegNets, ConvNeXts, Swins, ViTs and DeiTs are (timm.list_models('cp_*'))"
        )
    return found


def run_trial(trial: nn.Module, size: tuple[int, int, int], problem: str) -> None:
    """Run a copy of a model on the meta device.

    Raises:
        UserError: ``problem``, and why the copy doesn't run.
    """
    try:
        run_on_meta(trial, size)
    except (RuntimeError, AssertionError, AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise UserError(f"{problem}: run on the meta device, it fails: {one_line(error)}") from error


def _candidates(module: nn.Module, prefix: str) -> Iterator[str]:
    """Members of rows that have parts of their own, without rows inside of members."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if path in _NOT_BLOCKS or isinstance(child, Replacement):
            continue
        # What a stage keeps as its blocks may have rows of its own inside.
        inner = not prefix.endswith(_ROWS_OF_STAGES) and _has_row(child)
        # What stands beside a stage's row is a branch of its own (GC ViT's queries) or changes the map.
        if prefix and _has_row(module) and name not in _ROW_NAMES:
            continue
        if isinstance(child, _ROWS) or inner:
            yield from _candidates(child, f"{path}.")
        elif isinstance(module, _ROWS) and any(True for _ in child.children()) and not _is_no_member(child):
            yield path


def _has_row(module: nn.Module) -> bool:
    return any(isinstance(getattr(module, name, None), _ROWS) for name in _ROW_NAMES)


def _is_no_member(module: nn.Module) -> bool:
    # A dictionary calls everything that is put into it. What timm fuses for deployment it replaces, and a pool with it.
    return isinstance(module, nn.ModuleDict) or hasattr(module, "fuse")


def _count_layers(module: nn.Module) -> int:
    # A norm with an activation has parts, too, but none of these.
    return sum(isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) for part in module.modules())


def _record(calls: list[Any], module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    calls.append((args[0] if args else None, output))


def _layout(shape: Sequence[int], size: tuple[int, int, int]) -> Layout | None:
    """How a map lies, (C, H, W) or (H, W, C): as comes nearer to the image's proportions; None where both do."""
    first, last = (abs(math.log(size[1] * columns / (size[2] * rows))) for rows, columns in (shape[1:], shape[:2]))
    return None if first == last else "NCHW" if first < last else "NHWC"


def _is_grid(rows: int, columns: int, size: tuple[int, int, int]) -> bool:
    """Whether a map has the image's proportions but for rounding, and is no row of windows or the like."""
    _, height, width = size
    return (rows - 1) * width <= height * (columns + 1) and (columns - 1) * height <= width * (rows + 1)


def _block(model: Any, path: str, calls: list[Any], size: tuple[int, int, int], usual: Layout) -> Block | None:
    """Describe a candidate by what went through it, or None where that is not one grid, once.

    A map with as many channels as rows and columns lies as most others of the model do.
    """
    if len(calls) != 1 or not all(isinstance(tensor, Tensor) for tensor in calls[0]):
        return None
    before, after = calls[0]
    # Between blocks, a single layer changes size or width; one that keeps both may well be a small block.
    if _count_layers(model.get_submodule(path)) < (1 if before.shape == after.shape else 2):
        return None
    shape = tuple(after.shape[1:])
    module, prefix = model.get_submodule(path), 0
    if len(shape) == 2:
        grid = getattr(patch_embedding(model), "grid_size", None)
        if grid is None or shape[0] < grid[0] * grid[1]:
            return None
        prefix = shape[0] - grid[0] * grid[1]
        layout: Layout = "tokens"
        channels, rows = shape[1], grid[0]
    elif len(shape) == 3:
        layout = _layout(shape, size) or usual
        channels, rows, columns = shape if layout == "NCHW" else (shape[2], shape[0], shape[1])
        if not _is_grid(rows, columns, size):
            return None
    else:
        return None
    separate = layout == "tokens" and isinstance(getattr(module, "attn", None), nn.Module)
    return Block(
        name=path,
        module=module,
        layout=layout,
        channels=channels,
        reduction=round(size[1] / rows),
        droppable=before.shape == after.shape,
        attention=("attn", "input") if separate else None,
        prefix=prefix,
    )
