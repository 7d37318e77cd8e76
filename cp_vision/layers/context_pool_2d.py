"""ContextPool as a module: a small mapping network predicts weight and support; a gate mixes input and result.

Shapes: B batch, C channels, H x W grid of the input, h x w = ceil(H/stride) x ceil(W/stride) grid of the output.
``x_BCHW`` the input, ``log_weight_BHW``, ``sigma_Bhw`` supports in pixels, ``gate_C`` g.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ..pooling.context_pool import check_backend, coarse_grid, gated_context_pool, uses_linear
from ..pooling.linear import linear_macs
from ..pooling.pyramid import count_levels
from .mapping import hidden_width, make_mapping, run_mapping

__all__ = ["ContextPool2d"]

LAYER_MODES = ("gated", "replace")

# Longer side of the largest map that a model exported with open sizes serves in full: the grids that serve a support
# have to be counted before a size is known.
_OPEN_SIDE = 512

# Predicted log weights lie between minus and plus this, so that the heaviest token of a map weighs e^4 = 55 times the
# lightest at most: the linear backend's error grows with that ratio.
_LOG_WEIGHT_BOUND = 2.0


class ContextPool2d(nn.Module):
    """Adaptive context pooling of a feature map, (B, C, H, W) -> (B, C, ceil(H/stride), ceil(W/stride)).

    A mapping of two convolutions predicts two numbers u and v for every token: its log weight is ``2 tanh(u / 2)``
    and its support ``sigma = sigma_min + support_range * L * sigmoid(v)`` in pixels, L being the longer side of the
    grid; :func:`cp_vision.context_pool` does the rest. So the heaviest token weighs at most e^4 = 55 times the
    lightest, which bounds the error of the linear backend. A new pool starts with equal weights and the middle of the
    support range.

    In a graph that ``torch.fx`` traces a pool is one node, as the modules of ``torch.nn`` are.

    Args:
        channels: number of channels C.
        stride: pixels between outputs; more than 1 needs ``mode="replace"``.
        mode: ``"gated"`` gives ``x + g * (pool(x) - x)`` with ``g`` learned per channel and zero at the start,
            so that a new pool changes nothing; ``"replace"`` gives ``pool(x)``.
        support_range: r, the largest support as a share of the grid's longer side.
        sigma_min: smallest support in pixels.
        hidden: width of the mapping network; None takes a 128th of the channels, at least 2.
        learned_weight: False gives every token the same weight (ablation).
        learned_support: False fixes every support at the middle of its range (ablation).
        backend: see :func:`cp_vision.context_pool`.

    Attributes:
        mapping: the mapping network, (B, C, H, W) -> (B, 1 or 2, H, W): u, then v, as far as they are learned;
            None where neither is.
        gate: g, (C,); None in mode ``"replace"``.

    Raises:
        ValueError: an argument outside its range.

    Source: Huang et al., ICML 2022; r, the sigmoid, the bounded log weight and the two convolutions are our reading of
    it. The gate and the stride are our extensions.
    """

    _kernel = (3, 3)

    def __init__(
        self,
        channels: int,
        stride: int = 1,
        mode: str = "gated",
        *,
        support_range: float = 0.1,
        sigma_min: float = 0.1,
        hidden: int | None = None,
        learned_weight: bool = True,
        learned_support: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        for name, value in (("learned_weight", learned_weight), ("learned_support", learned_support)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} {value!r} must be True or False")
        _check_options(channels, stride, mode, support_range, sigma_min, 1 if hidden is None else hidden, backend)
        self.channels, self.stride, self.mode = channels, stride, mode
        self.support_range, self.sigma_min, self.backend = support_range, sigma_min, backend
        self.learned_weight, self.learned_support = learned_weight, learned_support
        outputs = learned_weight + learned_support
        hidden = hidden or hidden_width(channels)
        self.mapping = make_mapping(channels, hidden, outputs, self._kernel) if outputs else None
        self.gate = nn.Parameter(torch.empty(channels)) if mode == "gated" else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin anew, with equal weights, the middle of the support range and a closed gate.

        The mapping's first convolution is left alone, since it resets itself.
        """
        if self.mapping is not None:
            for parameter in self.mapping[-1].parameters():
                parameter.zero_()
        if self.gate is not None:
            self.gate.zero_()

    def can_start_at(self, sigma: float, grid: tuple[int, int]) -> bool:
        """Whether the pool learns its support, and a support in pixels lies well within its range on such a map."""
        share = (sigma - self.sigma_min) / (self.support_range * max(grid))
        return self.learned_support and 0.02 < share < 0.98

    @torch.no_grad()
    def start_at(self, sigma: float, grid: tuple[int, int]) -> None:
        """Begin anew, with equal weights, this support everywhere and a closed gate.

        Args:
            sigma: in pixels, as :meth:`can_start_at` allows.
            grid: height and width of the map.

        Raises:
            ValueError: a support that it can't start at.
        """
        if not self.can_start_at(sigma, grid):
            raise ValueError(f"support {sigma!r} lies outside of what this pool learns on a map of {grid}")
        self.reset_parameters()
        share = (sigma - self.sigma_min) / (self.support_range * max(grid))
        self.mapping[-1].bias[-1] = math.log(share / (1 - share))  # type: ignore[index, operator]

    def weight_and_support(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the log weight (B, H, W) and the support sigma in pixels (B, ceil(H/stride), ceil(W/stride)).

        Both are float32 at least. Log weights lie between -2 and 2.

        Args:
            x: (B, C, H, W), unchecked.
        """
        batch, _, height, width = x.shape
        learned = () if self.mapping is None else run_mapping(self.mapping, x).unbind(1)
        equal = x.new_zeros(batch, height, width)
        dtype = torch.promote_types(x.dtype, torch.float32)
        log_weight = (learned[0] if self.learned_weight else equal).to(dtype)
        log_weight = _LOG_WEIGHT_BOUND * torch.tanh(log_weight / _LOG_WEIGHT_BOUND)
        support = (learned[-1] if self.learned_support else equal).to(dtype)
        if self.stride > 1:
            support = F.avg_pool2d(support[:, None], self.stride, ceil_mode=True, count_include_pad=False).squeeze(1)
        if isinstance(height, Tensor):
            # TorchScript's tracing has tensors for sizes.
            raise RuntimeError(
                "TorchScript can't trace a context pool; use torch.export, or torch.onnx.export(..., dynamo=True)"
            )
        longest: Any = torch.sym_max(height, width)
        span = self.support_range * longest
        return log_weight, self.sigma_min + span * support.sigmoid()

    def largest_support(self, grid: tuple[int, int]) -> float:
        """Largest support in pixels on a map of this height and width.

        In a graph with open sizes it is that of a map of 512 pixels a side: larger maps pool with supports up to that.
        """
        is_open = any(isinstance(size, torch.SymInt) for size in grid)
        return self.sigma_min + self.support_range * (_OPEN_SIDE if is_open else max(grid))

    def macs(self, grid: tuple[int, int], pooled: int | None = None) -> int:
        """Cost of one map in MACs, in closed form: the mapping network and the product with the weights.

        Args:
            grid: height and width of the map, in pixels.
            pooled: channels that are pooled, where :meth:`pool` gets another map than the mapping network.

        Returns:
            ``N (C h + h) + N o (k h + 1)`` and, where the backend is exact, ``M N C``, for N input and M output
            tokens, C channels, hidden width h, o predicted maps and k kernel taps. Where the backend is linear, the
            filters of its levels and ``M w (C + 1)``, for windows of w cells, stand in place of ``M N C``.
        """
        tokens, outputs = math.prod(grid), math.prod(coarse_grid(grid, self.stride))
        channels = self.channels if pooled is None else pooled
        if uses_linear(grid, self.stride, self.backend):
            levels = count_levels(self.largest_support(grid))
            average = linear_macs(channels, grid, outputs, self.stride, levels)
        else:
            average = outputs * tokens * channels
        mapping = 0 if self.mapping is None else sum(parameter.numel() for parameter in self.mapping.parameters())
        return tokens * mapping + average

    def pool(self, x: Tensor, log_weight: Tensor, sigma: Tensor) -> Tensor:
        """Pool x with the given weights and supports, in this module's mode.

        Args:
            x: (B, C, H, W), unchecked; without a gate it may have any number of channels.
            log_weight: (B, H, W).
            sigma: in pixels, (B, ceil(H/stride), ceil(W/stride)).

        Returns:
            (B, C, ceil(H/stride), ceil(W/stride)).

        Raises:
            ValueError: as :func:`cp_vision.context_pool`.
        """
        return self._pool(x, log_weight, sigma, masked=True)

    def _pool(self, x: Tensor, log_weight: Tensor, sigma: Tensor, *, masked: bool) -> Tensor:
        sigma_max = self.largest_support((x.shape[2], x.shape[3]))
        return gated_context_pool(x, log_weight, sigma, self.gate, self.stride, self.backend, sigma_max, masked)

    def forward(self, x: Tensor) -> Tensor:
        """Pool a feature map, (B, C, H, W) -> (B, C, ceil(H/stride), ceil(W/stride)).

        Raises:
            ValueError: x has another number of dimensions or channels, or no pixels.
        """
        if isinstance(x, fx.Proxy):
            return record_call(self, x)
        if x.ndim != 4 or x.shape[1] != self.channels or 0 in x.shape[2:]:
            raise ValueError(f"expected (B, {self.channels}, H, W) with at least one pixel, got {tuple(x.shape)}")
        log_weight, sigma = self.weight_and_support(x)
        return self._pool(x, log_weight, sigma, masked=False)

    def extra_repr(self) -> str:
        """Show what tells this pool from another."""
        return f"{self.channels}, stride={self.stride}, mode={self.mode!r}, support_range={self.support_range}"


def record_call(pool: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Record the call of a pool as one node of the graph that ``torch.fx`` traces, whoever's the tracer.

    Tracers take a module outside of ``torch.nn`` apart unless they are told not to, and a pool's sizes are no symbols.

    Args:
        pool: a module within the one that is traced.
        *args: what it is called with; the first is a ``torch.fx.Proxy``.
        **kwargs: likewise, by keyword.
    """
    tracer = args[0].tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(pool), args, kwargs)


def _check_options(
    channels: int,
    stride: int,
    mode: str,
    support_range: float,
    sigma_min: float,
    hidden: int,
    backend: str,
) -> None:
    if mode not in LAYER_MODES:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(LAYER_MODES)}")
    if mode == "gated" and stride != 1:
        raise ValueError(f"mode 'gated' keeps the grid, so it can't have stride {stride}; use mode 'replace'")
    for name, value in (("channels", channels), ("stride", stride), ("hidden", hidden)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} {value!r} must be a whole number, 1 or more")
    check_backend(backend, stride)
    for name, number in (("support_range", support_range), ("sigma_min", sigma_min)):
        if not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number):
            raise ValueError(f"{name} {number!r} must be a finite number")
    if not support_range > 0 or sigma_min < 0:
        raise ValueError(
            f"support_range {support_range} must be above 0 and sigma_min {sigma_min} must not be negative"
        )
