"""Which hidden units of an MLP a stand-in keeps: those that a linear map of the tokens explains least.

Shapes: M tokens, C channels, H hidden units, m of them kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..anatomy.mlp import MlpLayers, mlp_layers
from ..layers.narrow_mlp import NarrowMlp

__all__ = ["UnitSums", "keep_units"]


class UnitSums:
    """Sums from which the importance of hidden units is told, over batches of tokens.

    Args:
        module: the MLP.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = mlp_layers(module)
        if layers is None:
            raise ValueError(f"{type(module).__name__} is no MLP whose layers are known")
        self.layers: MlpLayers = layers
        self._xx = self._xh = self._hh = torch.zeros(())

    def add(self, x_MC: Tensor) -> None:
        """Add tokens as the MLP gets them."""
        x, h = x_MC.double(), _units(self.layers, x_MC).double()
        # The last row and column are of sums.
        z_MZ = torch.cat([x, x.new_ones(len(x), 1)], 1)
        self._xx = self._xx.to(z_MZ) + z_MZ.mT @ z_MZ
        self._xh = self._xh.to(z_MZ) + z_MZ.mT @ h
        self._hh = self._hh.to(z_MZ) + h.square().sum(0)

    def importance(self) -> Tensor:
        """Of each unit the variance that tokens don't explain linearly, times its squared outgoing weights; (H,)."""
        count, x_C, h_H = self._xx[-1, -1], self._xx[-1, :-1], self._xh[-1]
        xx_CC = self._xx[:-1, :-1] / count - torch.outer(x_C, x_C) / count**2
        xh_CH = self._xh[:-1] / count - torch.outer(x_C, h_H) / count**2
        ridge = 1e-6 * xx_CC.diagonal().mean().clamp_min(1e-300) * torch.eye(len(xx_CC)).to(xx_CC)
        explained_H = (xh_CH * torch.linalg.solve(xx_CC + ridge, xh_CH)).sum(0)
        left_H = (self._hh / count - (h_H / count).square() - explained_H).clamp_min(0)
        return left_H * self.layers.out.double().square().sum(0)


def keep_units(stand_in: NarrowMlp, sums: UnitSums) -> None:
    """Let a stand-in have the most important units, the most important first."""
    order = sums.importance().argsort(descending=True, stable=True)
    stand_in.keep(sums.layers.weights, sums.layers.biases, order[: stand_in.units])


def _units(layers: MlpLayers, x_MC: Tensor) -> Tensor:
    first, *second = [
        nn.functional.linear(x_MC, weight, bias) for weight, bias in zip(layers.weights, layers.biases, strict=True)
    ]
    activated: Tensor = layers.act(first)
    return activated * second[0] if second else activated
