"""The two layers of an MLP and what lies between, in timm and torchvision.

Shapes: C channels, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timm.layers import GluMlp, Mlp, SwiGLU
from torch import Tensor, nn

__all__ = ["MlpLayers", "mlp_layers"]


@dataclass(frozen=True)
class MlpLayers:
    """An MLP ``out (act(first x + bias)) + ...``, or gated ``out (act(gate x + bias) (first x + bias)) + ...``.

    Attributes:
        weights: (H, C), of the gate first where there is one, then of the units.
        biases: (H,) of each; None where there is none.
        act: the activation.
        out: (C, H), of the layer behind.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    act: nn.Module
    out: Tensor


def mlp_layers(module: nn.Module) -> MlpLayers | None:
    """The layers of an MLP that is known; None of anything else, such as one with a norm between its layers."""
    if isinstance(module, Mlp | GluMlp | SwiGLU):
        return None if not isinstance(module.norm, nn.Identity) else _of_timm(module)
    if isinstance(module, nn.Sequential):
        parts: list[Any] = [part for part in module if not isinstance(part, nn.Dropout)]
        kinds = [isinstance(part, nn.Linear) for part in parts]
        if kinds == [True, False, True] and not any(True for _ in parts[1].parameters()):
            first, act, last = parts
            return MlpLayers((first.weight,), (first.bias,), act, last.weight)
    return None


def _of_timm(module: Any) -> MlpLayers:
    out = module.fc2.weight.flatten(1)
    if isinstance(module, SwiGLU):
        layers = (module.fc1_g, module.fc1_x)
        return MlpLayers(tuple(x.weight for x in layers), tuple(x.bias for x in layers), module.act, out)
    weight, bias = module.fc1.weight.flatten(1), module.fc1.bias
    if isinstance(module, Mlp):
        return MlpLayers((weight,), (bias,), module.act, out)
    weights, biases = weight.chunk(2), (None, None) if bias is None else bias.chunk(2)
    # Of the gate first.
    order = (1, 0) if module.gate_last else (0, 1)
    return MlpLayers(tuple(weights[i] for i in order), tuple(biases[i] for i in order), module.act, out)
