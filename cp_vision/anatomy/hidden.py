"""What lies in the middle of a block or half, of which a part can stay: hidden units, heads, channels.

Shapes: C channels, H hidden features, k heads, d channels of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Attention, GluMlp, Mlp, SwiGLU
from timm.models import swin_transformer, swin_transformer_v2
from timm.models.vision_transformer import Attention as ViTAttention
from torch import Tensor, nn

from ..layers.kept_channels import KeptChannels
from ..layers.kept_filters import KeptFilters
from ..layers.kept_heads import KeptHeads
from ..layers.kept_units import KeptUnits
from ..layers.kept_window_heads import KeptWindowHeads
from .hidden_channels import channels_of

__all__ = ["Hidden", "WindowMask", "hidden_of"]


@dataclass(frozen=True)
class Hidden:
    """The middle of a block or half, and the linear layer that reads it.

    Attributes:
        kept: all of it, as a layer; of ``kept.some`` a part can be asked for.
        out: (C, H), of the layer behind.
        parts: how many can be kept one by one: H hidden units or channels, groups of these, or k heads.
    """

    kept: KeptUnits | KeptHeads | KeptChannels | KeptFilters
    out: Tensor
    parts: int

    @property
    def part_size(self) -> int:
        """Channels of filters in groups that can only be kept together; 1 of what can be kept one by one."""
        return self.kept.size // self.parts if isinstance(self.kept, KeptChannels) else 1

    @property
    def head_channels(self) -> int:
        """Of each head, where heads can keep some of them; 0 elsewhere."""
        return self.kept.thinnable if isinstance(self.kept, KeptHeads) else 0

    @property
    def sums(self) -> int:
        """Of how many values products must be summed to choose what to keep: what is read, and what filters read."""
        kept = self.kept
        of_filters = kept.filters[0].numel() if isinstance(kept, KeptChannels) and kept.is_dense else 0
        return max(kept.size, of_filters)


def hidden_of(module: nn.Module, block: nn.Module | None = None) -> Hidden | None:
    """The middle of an MLP, a self-attention or a block of convolutions that is known, in eval mode; None of others.

    Not known are those whose parts depend on each other, as with a norm in the middle, and attention with positions
    other than Swin's.

    Args:
        module: the block or half.
        block: that a half is in; it has the masks of shifted windows, without which heads in windows see too much.
    """
    for find in (_units_of_timm, _units_of_a_row, _heads_of_timm, _heads_of_torch, _heads_of_swin, _channels):
        if (found := find(module)) is not None:
            if block is not None and isinstance(found.kept, KeptWindowHeads):
                found.kept.mask = WindowMask(block).now
            return found
    return None


class WindowMask:
    """The mask of a block's windows, as it is at the time; the block sets it anew for images of another size.

    Args:
        block: of a Swin transformer.

    Raises:
        ValueError: it makes a mask for each image.
    """

    def __init__(self, block: Any) -> None:
        if getattr(block, "dynamic_mask", False) and any(block.shift_size):
            raise ValueError(
                "its windows are masked anew for each image (strict_img_size=False); heads can't stay there"
            )
        self.block = block

    def now(self) -> Tensor | None:
        """(windows of an image, N, N), or None where windows aren't shifted."""
        mask: Tensor | None = self.block.attn_mask
        return mask


def _heads_of_swin(module: Any) -> Hidden | None:
    if type(module) not in (swin_transformer.WindowAttention, swin_transformer_v2.WindowAttention):
        return None
    heads, window = module.num_heads, module.window_size
    if type(module) is swin_transformer.WindowAttention:
        kept = KeptWindowHeads(
            module.qkv.weight, module.qkv.bias, heads, module.relative_position_bias_table, tuple(window)
        )
        return Hidden(kept, module.proj.weight, heads)
    bias = None if module.q_bias is None else torch.cat([module.q_bias, module.k_bias, module.v_bias])
    # What its MLP says of each position doesn't change with the image.
    table_Rk = 16 * module.cpb_mlp(module.relative_coords_table).view(-1, heads).sigmoid()
    scale_k = module.logit_scale.flatten().clamp(max=math.log(100)).exp()
    return Hidden(
        KeptWindowHeads(module.qkv.weight, bias, heads, table_Rk, tuple(window), scale_k), module.proj.weight, heads
    )


def _channels(module: nn.Module) -> Hidden | None:
    found = channels_of(module)
    return None if found is None else Hidden(*found)


def _units(weights: tuple[Tensor, ...], biases: tuple[Tensor | None, ...], act: nn.Module, out: Tensor) -> Hidden:
    return Hidden(KeptUnits(weights, biases, act), out, len(weights[0]))


def _units_of_timm(module: Any) -> Hidden | None:
    if not isinstance(module, Mlp | GluMlp | SwiGLU) or not isinstance(module.norm, nn.Identity):
        return None
    out = module.fc2.weight.flatten(1)
    if isinstance(module, SwiGLU):
        layers: Any = (module.fc1_g, module.fc1_x)
        return _units(tuple(x.weight for x in layers), tuple(x.bias for x in layers), module.act, out)
    weight, bias = module.fc1.weight.flatten(1), module.fc1.bias
    if isinstance(module, Mlp):
        return _units((weight,), (bias,), module.act, out)
    weights, biases = weight.chunk(2), (None, None) if bias is None else bias.chunk(2)
    # Of the gate first.
    order = (1, 0) if module.gate_last else (0, 1)
    return _units(tuple(weights[i] for i in order), tuple(biases[i] for i in order), module.act, out)


def _units_of_a_row(module: nn.Module) -> Hidden | None:
    """Of torchvision's MLPs: a linear layer, an activation and another linear layer, one after the other."""
    if not isinstance(module, nn.Sequential):
        return None
    parts: list[Any] = [part for part in module if not isinstance(part, nn.Dropout)]
    if [isinstance(part, nn.Linear) for part in parts] != [True, False, True] or _has_weights(parts[1]):
        return None
    first, act, last = parts
    return _units((first.weight,), (first.bias,), act, last.weight)


def _heads_of_timm(module: Any) -> Hidden | None:
    # Subclasses add positions and the like.
    if type(module) not in (Attention, ViTAttention) or module.gate is not None:
        return None
    if not isinstance(module.norm, nn.Identity):
        return None
    heads = KeptHeads(module.qkv.weight, module.qkv.bias, module.num_heads, module.q_norm, module.k_norm)
    return Hidden(heads, module.proj.weight, module.num_heads)


def _heads_of_torch(module: nn.Module) -> Hidden | None:
    if not isinstance(module, nn.MultiheadAttention) or module.in_proj_weight is None or module.bias_k is not None:
        return None
    if module.add_zero_attn or not module.batch_first:
        return None
    heads = KeptHeads(module.in_proj_weight, module.in_proj_bias, module.num_heads, nn.Identity(), nn.Identity())
    return Hidden(heads, module.out_proj.weight, module.num_heads)


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
