"""What lies in the middle of a block or half, of which a part can stay: hidden units, heads, expanded channels.

Shapes: C channels, H hidden features, k heads, d channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timm.layers import Attention, BatchNormAct2d, GluMlp, Mlp, SwiGLU
from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.vision_transformer import Attention as ViTAttention
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.mobilenetv2 import InvertedResidual as TorchvisionInvertedResidual

from ..layers.kept_channels import KeptChannels
from ..layers.kept_heads import KeptHeads
from ..layers.kept_units import KeptUnits

__all__ = ["Hidden", "hidden_of"]


@dataclass(frozen=True)
class Hidden:
    """The middle of a block or half, and the linear layer that reads it.

    Attributes:
        kept: all of it, as a layer; of ``kept.some`` a part can be asked for.
        out: (C, H), of the layer behind.
        parts: how many can be kept one by one: H hidden units or channels, or k heads.
    """

    kept: KeptUnits | KeptHeads | KeptChannels
    out: Tensor
    parts: int


def hidden_of(module: nn.Module) -> Hidden | None:
    """The middle of an MLP, a self-attention or an inverted residual that is known, in eval mode; None of others.

    Not known are those whose parts depend on each other: with a norm or squeeze-and-excitation in the middle, or
    positions in the attention.
    """
    for find in (_units_of_timm, _units_of_a_row, _heads_of_timm, _heads_of_torch, _channels_of_timm, _of_torchvision):
        if (found := find(module)) is not None:
            return found
    return None


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


def _channels_of_timm(module: Any) -> Hidden | None:
    if type(module) is not InvertedResidual or not isinstance(module.se, nn.Identity) or not module.has_skip:
        return None
    if not isinstance(module.aa, nn.Identity) or module.conv_s2d is not None:
        return None
    layers = [(module.conv_pw, module.bn1), (module.conv_dw, module.bn2), (module.conv_pwl, module.bn3)]
    if not all(isinstance(norm, BatchNormAct2d) and isinstance(norm.drop, nn.Identity) for _, norm in layers):
        return None
    return _channels(layers, module.bn1.act, module.bn2.act)


def _of_torchvision(module: Any) -> Hidden | None:
    if type(module) is not TorchvisionInvertedResidual or not module.use_res_connect or len(module.conv) != 4:
        return None
    expand, depthwise, project, norm = module.conv
    layers = [(expand[0], expand[1]), (depthwise[0], depthwise[1]), (project, norm)]
    return _channels(layers, expand[2], depthwise[2])


def _channels(layers: list[tuple[Any, Any]], act: nn.Module, depthwise_act: nn.Module) -> Hidden | None:
    convolutions = [convolution for convolution, _ in layers]
    # Subclasses pad or weigh in their own way.
    if any(type(convolution) is not nn.Conv2d or convolution.padding_mode != "zeros" for convolution in convolutions):
        return None
    expand, depthwise, project = convolutions
    side, dilation = depthwise.kernel_size[0], depthwise.dilation[0]
    as_kept = (
        expand.kernel_size == project.kernel_size == (1, 1)
        and expand.groups == project.groups == 1
        and depthwise.groups == depthwise.in_channels == depthwise.out_channels
        and depthwise.kernel_size == (side, side)
        and depthwise.dilation == (dilation, dilation)
        and depthwise.stride == (1, 1)
        and depthwise.padding == (dilation * (side // 2),) * 2
        and side % 2 == 1
    )
    if not as_kept or any(norm.running_mean is None for _, norm in layers):
        return None
    (v, c), (filters, e), (out, _) = (_folded(*layer) for layer in layers)
    kept = KeptChannels(v.flatten(1), c, act, filters[:, 0], e, depthwise_act, dilation)
    return Hidden(kept, out.flatten(1), len(v))


def _folded(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the norm behind it."""
    of_norm = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    return fuse_conv_bn_weights(convolution.weight, convolution.bias, *of_norm)


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
