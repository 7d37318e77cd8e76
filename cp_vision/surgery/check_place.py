"""Whether a pool can act at a place of a model."""

from __future__ import annotations

from torch import nn

from ..anatomy.block import Block
from ..anatomy.downsamplings import Pooling
from ..anatomy.places import has_other_attention
from ..shared.errors import UserError

__all__ = ["check_attention", "check_block", "check_not_compiled", "check_whole_grid"]


def check_attention(name: str, block: Block | None) -> None:
    """Raise a UserError unless the block of this name has an attention that can see a pooled map."""
    if block is None or not block.transformer:
        raise UserError(f"pool {name!r}: mode 'pre_attn' needs attention; use 'gated' or 'replace'")
    if has_other_attention(block.module):
        raise UserError(f"pool {name!r}: a stand-in is in its attention's place; use 'gated' or 'replace'")
    # A module that a user put around a block has the block's parts under other names.
    if block.attention is None or block.attention[0] not in dict(block.module.named_modules()):
        raise UserError(
            f"pool {name!r}: {type(block.module).__name__} has no separate attention over the whole grid for mode "
            "'pre_attn'; use 'gated' or 'replace'"
        )


def check_block(model: nn.Module, block: Block) -> None:
    """Raise a UserError where a pool would act more than once, or on a map of unknown channels."""
    row, _, own = block.name.rpartition(".")
    parts = model.get_submodule(row)._modules.items()
    others = [f"{row}.{name}" for name, part in parts if part is block.module and name != own]
    if others:
        raise UserError(
            f"pool {block.name!r}: the same block stands at {others[0]!r} as well, where the pool would act, too; give "
            "each place a block of its own (copy.deepcopy)"
        )
    kind = type(block.module)
    # A Sequential calls each of its children, the pool among them.
    if kind is not nn.Sequential and kind.forward is nn.Sequential.forward:
        raise UserError(
            f"pool {block.name!r}: the {kind.__name__} there would call the pool a second time; insert the pool first, "
            "then wrap the block, or wrap it with a module that has a forward of its own"
        )
    if block.channels == 0:
        raise UserError(
            f"pool {block.name!r}: the channels of the {kind.__name__} there aren't known (a ResNet's block has "
            "conv2 or conv3 for that); insert the pool before the block is replaced"
        )


def check_not_compiled(model: nn.Module, place: Block | Pooling, before_attention: bool) -> None:
    """Raise a UserError where a hook would stand inside of what ``Module.compile()`` compiled, which won't see it."""
    hooked = place.name
    if isinstance(place, Pooling) and place.block is not None:
        hooked = hooked.rpartition(".")[0]
    # A pool before attention hooks a child of the block; what is itself hooked may be compiled.
    parts = [*hooked.split("."), *(["attention"] if before_attention else [])]
    for outer in (".".join(parts[:i]) for i in range(len(parts))):
        module = model.get_submodule(outer)
        if module._compiled_call_impl is not None:
            what = f"{outer!r}" if outer else f"this {type(module).__name__}"
            raise UserError(
                f"pool {place.name!r}: {what} is compiled in place and won't see a new pool; insert pools first, then "
                "compile"
            )


def check_whole_grid(model: nn.Module, what: str) -> None:
    """Raise a UserError where a model leaves out patches in training, so that ``what`` would see a grid with holes."""
    if not isinstance(getattr(model, "patch_drop", None), nn.Identity | None):
        raise UserError(f"patch_drop_rate leaves holes in the token grid; use patch_drop_rate=0 with {what}")
