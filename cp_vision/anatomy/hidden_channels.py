"""The middle of blocks of convolutions: inverted residuals, bottlenecks and basic blocks of timm and torchvision.

Shapes: C channels, H values of the middle that are read for one pixel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from timm.layers import BatchNormAct2d, SEModule
from timm.models import regnet, resnet
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models import mobilenetv2
from torchvision.models import regnet as torchvision_regnet
from torchvision.models import resnet as torchvision_resnet
from torchvision.ops.misc import SqueezeExcitation

from ..layers.kept_channels import KeptChannels
from ..layers.kept_filters import KeptFilters
from ..layers.kept_gate import KeptGate

__all__ = ["channels_of", "last_act"]

# The activation that each ends with, behind the sum.
_LAST = {
    resnet.BasicBlock: "act2",
    resnet.Bottleneck: "act3",
    regnet.Bottleneck: "act3",
    torchvision_resnet.BasicBlock: "relu",
    torchvision_resnet.Bottleneck: "relu",
    torchvision_regnet.ResBottleneckBlock: "activation",
}


class _Layer(NamedTuple):
    """A convolution, the norm behind it, and the activation behind that, if there is one."""

    convolution: Any
    norm: Any
    act: Any = None


def last_act(block: nn.Module) -> nn.Module | None:
    """The activation behind a block's sum, where it is known to end with one."""
    act = getattr(block, _LAST[type(block)]) if type(block) in _LAST else None
    return None if isinstance(act, nn.Identity) else act


def channels_of(module: nn.Module) -> tuple[KeptChannels | KeptFilters, Tensor, int] | None:
    """The middle of a block that is known, (C, H) of the layer that reads it, and how many parts can be kept.

    In eval mode; None of other blocks, such as those that weigh the sum by squeeze-and-excitation or change the map.
    """
    layers = None
    for find in (_inverted, _torchvision_inverted, _resnet, _regnet, _torchvision_resnet, _torchvision_regnet):
        layers = layers or find(module)
    squeeze = _squeeze_of(module)
    gate = None if squeeze is None else _gate(squeeze)
    if layers is None or not all(_is_plain(*layer) for layer in layers) or (squeeze is not None and gate is None):
        return None
    if len(layers) == 2:
        return _between(*layers)
    return _in_the_middle(layers, gate)


def _squeeze_of(block: Any) -> nn.Module | None:
    """Squeeze-and-excitation between filters and last layer."""
    if type(block) in (InvertedResidual, regnet.Bottleneck):
        return None if isinstance(block.se, nn.Identity) else block.se
    return getattr(block.f, "se", None) if type(block) is torchvision_regnet.ResBottleneckBlock else None


def _gate(squeeze: Any) -> KeptGate | None:
    if type(squeeze) is SqueezeExcite:
        reduce, act, expand, gate = squeeze.conv_reduce, squeeze.act1, squeeze.conv_expand, squeeze.gate
    elif type(squeeze) is SEModule and not squeeze.add_maxpool and _are_nothing(squeeze.bn):
        reduce, act, expand, gate = squeeze.fc1, squeeze.act, squeeze.fc2, squeeze.gate
    elif type(squeeze) is SqueezeExcitation:
        reduce, act, expand, gate = squeeze.fc1, squeeze.activation, squeeze.fc2, squeeze.scale_activation
    else:
        return None
    if reduce.bias is None or expand.bias is None or any(True for _ in (*act.parameters(), *gate.parameters())):
        return None
    return KeptGate(reduce.weight.flatten(1), reduce.bias, act, expand.weight.flatten(1), expand.bias, gate)


def _inverted(block: Any) -> list[_Layer] | None:
    if type(block) is not InvertedResidual or not block.has_skip or block.conv_s2d is not None:
        return None
    if not _are_nothing(block.aa):
        return None
    pairs = ((block.conv_pw, block.bn1), (block.conv_dw, block.bn2), (block.conv_pwl, block.bn3))
    return _with_acts(pairs)


def _torchvision_inverted(block: Any) -> list[_Layer] | None:
    is_known = type(block) is mobilenetv2.InvertedResidual and block.use_res_connect and len(block.conv) == 4
    if not is_known:
        return None
    expand, depthwise, project, norm = block.conv
    return [_Layer(*expand), _Layer(*depthwise), _Layer(project, norm)]


def _resnet(block: Any) -> list[_Layer] | None:
    if type(block) not in (resnet.BasicBlock, resnet.Bottleneck) or block.downsample is not None:
        return None
    if not _are_nothing(block.aa, block.drop_block) or block.se is not None:
        return None
    layers = [_Layer(block.conv1, block.bn1, block.act1), _Layer(block.conv2, block.bn2, block.act2)]
    if type(block) is resnet.BasicBlock:
        return [layers[0], _Layer(block.conv2, block.bn2)]
    return [*layers, _Layer(block.conv3, block.bn3)]


def _regnet(block: Any) -> list[_Layer] | None:
    # Without a shortcut it adds to nothing.
    if type(block) is not regnet.Bottleneck or not isinstance(block.downsample, nn.Identity):
        return None
    parts = (block.conv1, block.conv2, block.conv3)
    return _with_acts([(part.conv, part.bn) for part in parts]) if _are_nothing(*(part.aa for part in parts)) else None


def _torchvision_resnet(block: Any) -> list[_Layer] | None:
    basic, bottleneck = torchvision_resnet.BasicBlock, torchvision_resnet.Bottleneck
    if type(block) not in (basic, bottleneck) or block.downsample is not None:
        return None
    first = _Layer(block.conv1, block.bn1, block.relu)
    if type(block) is basic:
        return [first, _Layer(block.conv2, block.bn2)]
    return [first, _Layer(block.conv2, block.bn2, block.relu), _Layer(block.conv3, block.bn3)]


def _torchvision_regnet(block: Any) -> list[_Layer] | None:
    if type(block) is not torchvision_regnet.ResBottleneckBlock or block.proj is not None:
        return None
    return [_Layer(*part) for part in (block.f.a, block.f.b, block.f.c)]


def _with_acts(pairs: Any) -> list[_Layer] | None:
    """Of timm's norms with the activation in them."""
    if not all(isinstance(norm, BatchNormAct2d) and _are_nothing(norm.drop) for _, norm in pairs):
        return None
    return [_Layer(convolution, norm, norm.act) for convolution, norm in pairs[:-1]] + [_Layer(*pairs[-1])]


def _are_nothing(*modules: nn.Module | None) -> bool:
    return all(module is None or isinstance(module, nn.Identity) for module in modules)


def _is_plain(convolution: Any, norm: Any, act: Any) -> bool:
    """Whether a convolution keeps the map's size, and can be folded with its norm."""
    # Subclasses pad or weigh in their own way.
    if type(convolution) is not nn.Conv2d or convolution.padding_mode != "zeros" or convolution.stride != (1, 1):
        return False
    side, dilation = convolution.kernel_size[0], convolution.dilation[0]
    return (
        side % 2 == 1
        and convolution.kernel_size == (side, side)
        and convolution.dilation == (dilation, dilation)
        and convolution.padding == (dilation * (side // 2),) * 2
        and isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)
        and norm.running_mean is not None
        and (not isinstance(norm, BatchNormAct2d) or norm.act is act or isinstance(norm.act, nn.Identity))
        and not any(True for _ in (act.parameters() if act is not None else ()))
    )


def _in_the_middle(layers: list[_Layer], gate: KeptGate | None) -> tuple[KeptChannels, Tensor, int] | None:
    """Of a 1 x 1 convolution, filters, squeeze-and-excitation if there is one, and another 1 x 1 convolution."""
    first, filters, last = layers
    ends = (first.convolution, last.convolution)
    if any(end.kernel_size != (1, 1) or end.groups != 1 for end in ends):
        return None
    (v, c), (k, e), (out, _) = (_folded(layer.convolution, layer.norm) for layer in (first, filters, last))
    kept = KeptChannels(v.flatten(1), c, first.act, k, e, filters.act, filters.convolution.dilation[0], gate)
    return kept, out.flatten(1), kept.size if kept.is_dense else kept.groups


def _between(first: _Layer, last: _Layer) -> tuple[KeptFilters, Tensor, int] | None:
    """Of two convolutions with neighbours."""
    if any(layer.convolution.groups != 1 for layer in (first, last)):
        return None
    (filters, c), (out, _) = (_folded(layer.convolution, layer.norm) for layer in (first, last))
    of_last = last.convolution
    dilations = first.convolution.dilation[0], of_last.dilation[0]
    kept = KeptFilters(filters, c, first.act, dilations[0], of_last.kernel_size[0], dilations[1])
    return kept, out.flatten(1), len(filters)


def _folded(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the norm behind it."""
    of_norm = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    return fuse_conv_bn_weights(convolution.weight, convolution.bias, *of_norm)
