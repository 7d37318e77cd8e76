"""What of a model can be replaced: runs of blocks, and the attention or the MLP half of one.

Shapes: B batch, C channels, H x W grid, N tokens, P prefix tokens: a place maps (B, N, C), (B, C, H, W) or (B, H, W, C)
to the same shape, with N = P + H W, or N tokens of each of an image's windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from timm.layers import RmsNorm, RmsNorm2d
from torch import nn

from ..cost.input_size import input_size_of
from ..cost.on_meta_device import meta_copy
from ..shared.errors import UserError, closest, listed
from .block import Block, DroppedBlock, Layout, has_pool
from .call import Call
from .hidden import hidden_of
from .known_families import check_removable, list_blocks
from .replacement import Replacement
from .token_grid import TokenGrid
from .unknown_families import run_trial

__all__ = ["HALVES", "Place", "find_places", "grid_of", "has_other_attention"]

# Names of the children that are attention or MLP halves, in timm and torchvision.
_ATTENTIONS = ("attn", "self_attention")
HALVES = (*_ATTENTIONS, "mlp", "ffn")


@dataclass(frozen=True)
class Place:
    """What one stand-in replaces.

    Attributes:
        name: as it was named: ``"blocks.4"``, ``"blocks.4:blocks.6"``, ``"blocks.3.attn"``.
        modules: paths of the modules that make it up, from input to output.
        layout: of its input and output.
        channels: C.
        prefix: P.
        residual: whether it adds to its input itself, as a block does; of a half its block does so.
        norm: whether it begins with a norm over channels.
        pair: whether it gives a tuple, whose first is the output.
        source: what tells the grid of its tokens: the model's patches, the map that the half's block gets, or the size
            of its attention's windows; None where the layout shows it.
        grid: height and width of its input, in tokens or pixels; of a window, where it works on these.
        count: how many such inputs one image has.
        macs: its cost for one image.
        parts: how many hidden units, heads or channels of its middle it has that could stay, see
            :func:`cp_vision.anatomy.hidden.hidden_of`; of filters in groups, how many of these; 0 where not known.
        part_size: how many channels of the middle one of them has; 1 of hidden units and heads.
        head_channels: channels of a head, where heads can keep some of theirs; 0 elsewhere.
    """

    name: str
    modules: tuple[str, ...]
    layout: Layout
    channels: int
    prefix: int
    residual: bool
    norm: bool
    pair: bool
    source: Literal["patches", "block", "window"] | None
    grid: tuple[int, int]
    count: int
    macs: int
    parts: int
    part_size: int
    head_channels: int


def find_places(model: nn.Module, names: Sequence[str]) -> list[Place]:
    """Describe what is named, by running a copy of the model that takes no memory.

    Args:
        model: the model; it is left untouched.
        names: of blocks, of runs of blocks (first and last, both included), of attention or MLP halves.

    Raises:
        UserError: a name that is none, blocks that don't follow each other or change the map, a half that is not
            found or works on another shape, a pool or another replacement there, one block in two places.
    """
    blocks = list_blocks(model)
    parts = {name: _parts_of(model, blocks, name) for name in names}
    _check_disjoint(parts)
    trial = meta_copy(model)
    calls = {path: Call(trial.get_submodule(path)) for paths in parts.values() for path in paths}
    around = {name: Call(trial.get_submodule(name.rpartition(".")[0])) for name in names if _is_half(name, parts[name])}
    size = input_size_of(model)
    run_trial(trial, size, f"{type(model).__name__} models can't be changed")
    tokens = TokenGrid(trial) if any(block.layout == "tokens" for block in blocks) else None
    patches = None if tokens is None else tokens.of_image(size[1], size[2])
    by_name = {block.name: block for block in blocks}
    made = []
    for name in names:
        first = calls[parts[name][0]]
        if name in around:
            block = by_name[name.rpartition(".")[0]]
            made.append(_half(name, block, first, around[name], patches))
        else:
            made.append(_run(name, by_name[parts[name][0]], parts[name], [calls[p] for p in parts[name]], patches))
    return made


def grid_of(model: nn.Module, place: Place, tokens: Callable[[], TokenGrid]) -> Callable[[], tuple[int, int]] | None:
    """What tells height and width of a place's map as the model runs; it may put a hook into the model.

    Args:
        model: the model that the place is in, before it is changed.
        place: the place.
        tokens: makes the model's grid of patches, one for all places.
    """
    if place.source == "patches":
        return tokens().now
    if place.source is None:
        return None
    block = model.get_submodule(place.name.rpartition(".")[0])
    return (_WindowGrid(block, place) if place.source == "window" else _MapGrid(block, place)).now


def has_other_attention(block: nn.Module) -> bool:
    """Whether a stand-in is in the place of a block's attention."""
    return any(isinstance(getattr(block, name, None), Replacement) for name in _ATTENTIONS)


class _WindowGrid:
    """The size of the windows of a block's attention; of a block that doesn't know it, what it was when replaced."""

    def __init__(self, block: nn.Module, place: Place) -> None:
        self.block, self.first = block, place.grid

    def now(self) -> tuple[int, int]:
        """Height and width."""
        return _window_size(self.block) or self.first


class _MapGrid:
    """The grid of a block whose MLP sees the map as a row of tokens: as the block's pre-hook it reads it there."""

    def __init__(self, block: nn.Module, place: Place) -> None:
        self.first = self.grid = place.grid
        self.handle = block.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Note height and width of (B, H, W, C)."""
        self.grid = (args[0].shape[1], args[0].shape[2])

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles forget the grid of the last image, which may be that of a graph's open sizes."""
        return {**vars(self), "grid": self.first}

    def now(self) -> tuple[int, int]:
        """Height and width."""
        return self.grid


def _parts_of(model: nn.Module, blocks: Sequence[Block], name: str) -> tuple[str, ...]:
    """Paths of the modules of what is named."""
    order = [block.name for block in blocks]
    first, colon, last = name.partition(":")
    for end in (first, last) if colon else (first,):
        if end not in order:
            owner, _, child = end.rpartition(".")
            if not colon and owner in order and child in HALVES:
                return (_check_half(model, name, blocks[order.index(owner)]),)
            _refuse_unknown(model, name, end, blocks)
    start, stop = order.index(first), order.index(last if colon else first)
    if stop < start:
        raise UserError(f"replace {name!r}: {last!r} comes before {first!r}; name the first block of the run first")
    run = blocks[start : stop + 1]
    for block in run:
        check_removable(f"replace {name!r}", block, blocks)
    _check_row(model, name, [block.name for block in run])
    return tuple(block.name for block in run)


def _check_row(model: nn.Module, name: str, run: list[str]) -> None:
    """Raise a UserError unless blocks are neighbours in one row, where nothing but dropped blocks lies between them."""
    row = {path.rpartition(".")[0] for path in run}
    if len(row) > 1:
        raise UserError(f"replace {name!r}: a run lies within one stage; {listed(sorted(row))} are several")
    if len(run) == 1:
        return
    # named_children() leaves out a block that is there a second time.
    members = [f"{row_name}.{child}" for row_name in row for child in model.get_submodule(row_name)._modules]
    between = members[members.index(run[0]) : members.index(run[-1]) + 1]
    strange = [m for m in between if m not in run and not isinstance(model.get_submodule(m), DroppedBlock)]
    if strange:
        raise UserError(f"replace {name!r}: {strange[0]!r} lies within the run and is no block that stays; name others")


def _check_half(model: nn.Module, name: str, block: Block) -> str:
    module = dict(model.named_modules()).get(name)
    if module is None or isinstance(module, nn.Identity):
        raise UserError(f"replace {name!r}: this block has no such half")
    if isinstance(module, Replacement):
        raise UserError(f"replace {name!r}: it is replaced already; undo that first")
    if name.rpartition(".")[2] in _ATTENTIONS and _pools_before_attention(block):
        raise UserError(f"replace {name!r}: a pool of mode 'pre_attn' acts on what it sees; replace the MLP half")
    return name


def _pools_before_attention(block: Block) -> bool:
    """Whether a pool hooks what attention sees."""
    if not has_pool(block.module) or block.attention is None:
        return False
    place = block.module.get_submodule(block.attention[0])
    hooks = (*place._forward_hooks.values(), *place._forward_pre_hooks.values())
    return any(getattr(hook, "owner", None) is block.module for hook in hooks)


def _refuse_unknown(model: nn.Module, name: str, end: str, blocks: Sequence[Block]) -> None:
    present = dict(model.named_modules())
    if isinstance(present.get(end), DroppedBlock | Replacement):
        raise UserError(f"replace {name!r}: {end!r} is dropped or replaced already; undo that first")
    allowed = [block.name for block in blocks if block.droppable]
    halves = [f"{b.name}.{half}" for b in blocks for half in HALVES if half in dict(b.module.named_children())]
    raise UserError(
        f"replace {name!r}: {end!r} is no block, and no attention or MLP half of one"
        f"{closest(end, [*allowed, *halves])} (blocks: {listed(allowed)}; halves: {listed(halves) or 'none'})"
    )


def _check_disjoint(parts: Mapping[str, tuple[str, ...]]) -> None:
    owner: dict[str, str] = {}
    for name, paths in parts.items():
        for path in paths:
            block = path.rpartition(".")[0]
            other = owner.get(path) or owner.get(block)
            if other is None and any(taken.startswith(f"{path}.") for taken in owner):
                other = next(owner[taken] for taken in owner if taken.startswith(f"{path}."))
            if other is not None:
                raise UserError(f"replace {name!r}: part of it is in {other!r} as well; name each block once")
            owner[path] = name


def _is_half(name: str, parts: tuple[str, ...]) -> bool:
    return parts == (name,) and name.rpartition(".")[2] in HALVES


def _run(
    name: str, first: Block, paths: tuple[str, ...], calls: Sequence[Call], patches: tuple[int, int] | None
) -> Place:
    for path, call in zip(paths, calls, strict=True):
        if call.input != calls[0].input or call.output != calls[0].input:
            raise UserError(
                f"replace {name!r}: {path!r} has a map of another shape than {paths[0]!r}; end the run there"
            )
    shape = calls[0].input
    parts, part_size, head_channels = _parts(calls[0].module) if len(calls) == 1 else (0, 1, 0)
    place = partial(
        Place,
        name=name,
        modules=paths,
        layout=first.layout,
        residual=True,
        norm=_is_pre_norm(first.module),
        pair=False,
        count=1,
        macs=sum(call.macs() for call in calls),
        parts=parts,
        part_size=part_size,
        head_channels=head_channels,
    )
    if first.layout == "tokens":
        if patches is None or shape[0] - math.prod(patches) < 0:
            raise UserError(f"replace {name!r}: its {shape[0]} tokens are no whole grid of patches")
        return place(channels=shape[1], prefix=shape[0] - math.prod(patches), source="patches", grid=patches)
    if first.layout == "NCHW":
        return place(channels=shape[0], prefix=0, source=None, grid=(shape[1], shape[2]))
    return place(channels=shape[2], prefix=0, source=None, grid=(shape[0], shape[1]))


def _half(name: str, block: Block, call: Call, around: Call, patches: tuple[int, int] | None) -> Place:
    shape = call.input
    if call.calls != 1 or shape != call.output:
        raise UserError(
            f"replace {name!r}: it maps {shape or 'nothing'} to {call.output or 'nothing'}, called {call.calls} times; "
            "what maps one tensor to one of the same shape, once, can be replaced"
        )
    parts, part_size, head_channels = _parts(call.module)
    place = partial(
        Place,
        name=name,
        modules=(name,),
        residual=False,
        norm=False,
        pair=call.pair,
        count=call.count,
        macs=call.macs(),
        parts=parts,
        part_size=part_size,
        head_channels=head_channels,
    )
    of_map = around.input[1:] if block.layout == "NCHW" else around.input[:2]
    if len(shape) == 3:
        # As many channels as the block, last or first; where both are as many, its first layer tells.
        is_last = shape[2] == block.channels
        if is_last and (shape[0] != block.channels or _is_linear(call.module)):
            return place(layout="NHWC", channels=shape[2], prefix=0, source=None, grid=(shape[0], shape[1]))
        return place(layout="NCHW", channels=shape[0], prefix=0, source=None, grid=(shape[1], shape[2]))
    if len(shape) == 2:
        window = _window_size(block.module)
        tokens = partial(place, layout="tokens", channels=shape[1])
        if block.layout == "tokens" and patches is not None and call.count == 1 and shape[0] >= math.prod(patches):
            return tokens(prefix=shape[0] - math.prod(patches), source="patches", grid=patches)
        if window is not None and math.prod(window) == shape[0]:
            return tokens(prefix=0, source="window", grid=window)
        if block.layout == "NHWC" and call.count == 1 and math.prod(of_map) == shape[0]:
            return tokens(prefix=0, source="block", grid=(of_map[0], of_map[1]))
    raise UserError(f"replace {name!r}: where its {shape} tokens lie is not known; replace the whole block")


def _parts(module: nn.Module) -> tuple[int, int, int]:
    """How many parts of its middle could stay, their size, and channels of a head that can keep some."""
    hidden = hidden_of(module)
    return (0, 1, 0) if hidden is None else (hidden.parts, hidden.part_size, hidden.head_channels)


def _window_size(block: Any) -> tuple[int, int] | None:
    for module in (block, getattr(block, "attn", None)):
        size = getattr(module, "window_size", None)
        if isinstance(size, int) and size > 0:
            return size, size
        if isinstance(size, Sequence) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None


def _is_linear(half: nn.Module) -> bool:
    """Whether the first layer of a half takes channels last."""
    return next((isinstance(m, nn.Linear) for m in half.modules() if isinstance(m, nn.Linear | nn.Conv2d)), False)


def _is_pre_norm(block: nn.Module) -> bool:
    """Whether the first child of a block that has parameters is a norm over channels."""
    for child in block.children():
        if any(True for _ in child.parameters()):
            return isinstance(child, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | RmsNorm | RmsNorm2d)
    return False
