"""A stand-in for an MLP: some of its hidden units beside a linear map of each token.

Shapes: B batch, C channels, H x W grid, P prefix tokens (class and register tokens), m hidden units, F = C + m
features.
``x_BCHW`` the map, ``x_BPC`` its prefix tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from .context_pool_2d import record_call
from .pointwise import pointwise
from .read_out import ReadOut, read_out_macs

__all__ = ["NarrowMlp"]


class NarrowMlp(nn.Module):
    """``y = W [x, h(x)] + b``, h the m hidden units that stay: ``act(V x + c)``, gated ``act(V_g x + c_g) (V x + c)``.

    V and c are those of the MLP, W and b are fitted in closed form to what it did; new, they are zero. A prefix token
    has a W and b of its own.

    Args:
        channels: C.
        units: m, 1 or more.
        act: the MLP's activation.
        gated: whether a unit is the product of two, of which the first goes through ``act``.
        prefix: P.

    Attributes:
        hidden: V and c; of gated units those of the gate first.
        read_out: W and b.
        prefix_read_outs: of each prefix token.

    Raises:
        ValueError: a number of units that is none.

    Source: our own. Units kept, and the layer behind them fitted again: He et al., ICCV 2017, arXiv 1707.06168; a map
    beside them is our extension.
    """

    residual = False

    def __init__(self, channels: int, units: int, act: nn.Module, *, gated: bool = False, prefix: int = 0) -> None:
        super().__init__()
        if not isinstance(units, int) or isinstance(units, bool) or units < 1:
            raise ValueError(f"units {units!r} must be a whole number, 1 or more")
        self.channels, self.units, self.prefix = channels, units, prefix
        self.hidden = nn.ModuleList(nn.Linear(channels, units) for _ in range(1 + gated))
        self.act = act
        self.read_out = ReadOut(channels + units, channels, channels)
        self.prefix_read_outs = nn.ModuleList(ReadOut(channels + units, channels, channels) for _ in range(prefix))

    @torch.no_grad()
    def keep(self, weights_HC: Sequence[Tensor], biases_H: Sequence[Tensor | None], which_m: Tensor) -> None:
        """Take units of an MLP.

        Args:
            weights_HC: of its first layer; of gated units that of the gate first.
            biases_H: of its first layer, likewise.
            which_m: numbers of the units.
        """
        for linear, weight, bias in zip(self._hidden(), weights_HC, biases_H, strict=True):
            linear.weight.copy_(weight[which_m])
            linear.bias.zero_() if bias is None else linear.bias.copy_(bias[which_m])

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> Any:
        """Map (B, C, H, W) to (B, C, H, W); with prefix tokens (B, P, C) beside it, to both of them."""
        if isinstance(x_BCHW, fx.Proxy):
            return record_call(self, x_BCHW, *([] if x_BPC is None else [x_BPC]))
        first, *second = [pointwise(x_BCHW, linear.weight, linear.bias) for linear in self._hidden()]
        h_BmHW = self._units(first, second)
        of_x, of_h = self.read_out.down.split([self.channels, self.units], 1)
        y_BCHW = pointwise(x_BCHW, of_x, self.read_out.bias) + pointwise(h_BmHW, of_h)
        if x_BPC is None:
            return y_BCHW
        parts = zip(self.prefix_read_outs, self._prefix_features(x_BPC), strict=True)
        return y_BCHW, torch.cat([one(features) for one, features in parts], 1)

    def features(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> list[Tensor]:
        """What the linear maps read: (B, H W, F) for the grid, then (B, 1, F) for each prefix token."""
        of_grid = self._features(x_BCHW.flatten(2).mT)
        return [of_grid, *([] if x_BPC is None else self._prefix_features(x_BPC))]

    def read_outs(self) -> list[ReadOut]:
        """The linear maps, in the order of :meth:`features`."""
        return [self.read_out, *cast("Iterable[ReadOut]", self.prefix_read_outs)]

    def macs(self, grid: tuple[int, int]) -> int:
        """Cost of one map and its prefix tokens in MACs, in closed form.

        Args:
            grid: height and width of the map, in tokens or pixels.
        """
        hidden = len(self.hidden) * (self.channels + 1) * self.units
        maps = read_out_macs(self.channels + self.units, self.channels, self.channels)
        return (math.prod(grid) + self.prefix) * (hidden + maps)

    def _hidden(self) -> Iterable[nn.Linear]:
        return cast("Iterable[nn.Linear]", self.hidden)

    def _units(self, first: Tensor, second: Sequence[Tensor]) -> Tensor:
        activated: Tensor = self.act(first)
        return activated * second[0] if second else activated

    def _features(self, x_BnC: Tensor) -> Tensor:
        first, *second = [F.linear(x_BnC, linear.weight, linear.bias) for linear in self._hidden()]
        return torch.cat([x_BnC, self._units(first, second)], 2)

    def _prefix_features(self, x_BPC: Tensor) -> list[Tensor]:
        return [self._features(token) for token in x_BPC.split(1, 1)]

    def extra_repr(self) -> str:
        """Show what tells this one from another."""
        return f"{self.channels}, units={self.units}, gated={len(self.hidden) > 1}"
