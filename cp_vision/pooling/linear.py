"""Context pooling in time and memory linear in the number of pixels.

The map and its weights are filtered into a pyramid of coarser grids (``pyramid``); every output token picks the level
that suits its support and averages a window of that level's cells (``windows``). As one operator,
``cp_vision::linear_pool``, that is the same eagerly, compiled and counted: in float32 by a compiled kernel on the CPU
where there is a compiler (``cpu_kernel``) and by Triton's on GPUs (``gpu_kernel``), otherwise in PyTorch's own
operators (``linear_plain``), which is also what is exported.

Shapes: B batch, C channels, H x W grid of the input, h x w grid of the output. ``x_BCHW`` tokens, ``log_weight_BHW`` u,
``weight_BHW`` exp(u), ``sigma_Bhw`` supports in pixels, ``gate_C``; the result is ``y_BChw``.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor

from . import cpu_kernel
from .layout import memory_format
from .linear_plain import WindowTables, is_traced, linear_average, linear_average_gradients
from .pyramid import FILTER, axis_cells, count_levels, level_ends
from .windows import window_taps

__all__ = ["linear_macs", "linear_pool"]

# Tokens that weigh less than exp(-40) of the image's heaviest count as that: a window of such tokens alone still
# has a float32 sum, and no weight is denormal.
_WEIGHT_CUT = -40.0


def linear_pool(
    x: Tensor,
    log_weight: Tensor,
    sigma: Tensor,
    gate: Tensor | None,
    stride: int,
    sigma_max: float | None,
    masked: bool,
) -> Tensor:
    """Approximate :func:`.gated_context_pool` in linear time; arguments as there, unchecked."""
    # Unbounded supports end at four times the longer side, where all tokens weigh nearly the same.
    levels = count_levels(4.0 * max(x.shape[2], x.shape[3]) if sigma_max is None else sigma_max)
    dtype = torch.promote_types(x.dtype, torch.float32)
    # Autocast would run the filters in half precision, where weights lose their digits.
    with _without_autocast(x.device.type):
        relative = log_weight.to(dtype) - log_weight.detach().to(dtype).amax((1, 2), keepdim=True)
        weight = relative.clamp_min(_WEIGHT_CUT).exp().masked_fill(log_weight == -torch.inf, 0.0)
        support = sigma.to(dtype).clamp(max=level_ends(levels)[-1] if sigma_max is None else sigma_max)
        arguments = (x.to(dtype), weight, support, None if gate is None else gate.to(dtype), stride, levels)
        if is_traced():
            # An exported graph runs without this package; and torch.func can't differentiate operators of others.
            return linear_average(*arguments, full=stride <= 2 and not masked).to(x.dtype)
        return torch.ops.cp_vision.linear_pool(*arguments).to(x.dtype)


def linear_macs(channels: int, grid: tuple[int, int], outputs: int, stride: int, levels: int) -> int:
    """MACs of one image: the filters that make the levels, along one axis after the other, and full windows' sums.

    Args:
        channels: channels of the map; the weights count as one more.
        grid: its height and width.
        outputs: number of output tokens.
        stride: pixels between them.
        levels: number of levels.
    """
    height, width = ([number for _, number in axis_cells(size, levels)] for size in grid)
    down, across = (0 if size == 1 else len(FILTER) for size in grid)
    window = math.prod(window_taps(size, stride) for size in grid)
    filters = sum(
        rows * (down * width[level] + across * columns)
        for level, (rows, columns) in enumerate(zip(height[1:], width[1:], strict=True))
    )
    return (filters + outputs * window) * (channels + 1)


@torch.library.custom_op("cp_vision::linear_pool", mutates_args=())
def _linear_pool(x: Tensor, weight: Tensor, sigma: Tensor, gate: Tensor | None, stride: int, levels: int) -> Tensor:
    tensors = (x, weight, sigma, gate)
    if _has_kernel("cpu", *tensors) and (library := cpu_kernel.find_kernel()) is not None:
        return cpu_kernel.average(library, *tensors, stride, levels)
    full = stride <= 2 and bool((weight > 0).all())
    y = linear_average(*tensors, stride, levels, full, _window_sums(*tensors))
    return y.contiguous(memory_format=memory_format(x))


@torch.library.custom_op("cp_vision::linear_pool_gradients", mutates_args=())
def _linear_pool_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, sigma: Tensor, gate: Tensor | None, stride: int, levels: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tensors = (gradient, x, weight, sigma, gate)
    if _has_kernel("cpu", *tensors) and (library := cpu_kernel.find_kernel()) is not None:
        found = cpu_kernel.average_gradients(library, *tensors, stride, levels)
    else:
        found = linear_average_gradients(*tensors, stride, levels, _window_sums(*tensors))
    for_x, for_weight, for_sigma, for_gate = found
    for_x = for_x.contiguous(memory_format=memory_format(x))
    return for_x, for_weight, for_sigma, x.new_empty(0) if for_gate is None else for_gate


def _has_kernel(device: str, *tensors: Tensor | None) -> bool:
    """Whether kernels for this type of device take these tensors."""
    return all(each is None or (each.device.type == device and each.dtype == torch.float32) for each in tensors)


def _window_sums(first: Tensor, *others: Tensor | None) -> type[WindowTables]:
    """What sums over windows: Triton's kernels where they run, if their order of additions may differ."""
    if _has_kernel("cuda", first, *others) and not torch.are_deterministic_algorithms_enabled():
        # Triton comes with PyTorch's builds for GPUs alone.
        with contextlib.suppress(ImportError):
            from .gpu_kernel import FusedWindows, is_usable

            if is_usable(first.device):
                return FusedWindows
    return WindowTables


@_linear_pool.register_fake
def _(x: Tensor, weight: Tensor, sigma: Tensor, gate: Tensor | None, stride: int, levels: int) -> Tensor:
    shape = (x.shape[0], x.shape[1], sigma.shape[1], sigma.shape[2])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


@_linear_pool_gradients.register_fake
def _(
    gradient: Tensor, x: Tensor, weight: Tensor, sigma: Tensor, gate: Tensor | None, stride: int, levels: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    for_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))
    return for_x, _plain(weight), _plain(sigma), x.new_empty(0) if gate is None else _plain(gate)


def _plain(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.stride, ctx.levels = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    *found, for_gate = torch.ops.cp_vision.linear_pool_gradients(gradient, *tensors, ctx.stride, ctx.levels)
    return *found, None if tensors[3] is None else for_gate, None, None


_linear_pool.register_autograd(_differentiate, setup_context=_save)


def _without_autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    if device == "meta" or not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)
