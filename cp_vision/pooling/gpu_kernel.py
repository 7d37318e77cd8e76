"""The linear backend's windows on a GPU: Triton kernels that work out cells and weights on the fly.

PyTorch's operators (``linear_plain``) first write each window's indices and weights to memory, 16 bytes for each of 81
cells a token, and read them again for every sum. Here they stay in registers. At first use the kernels are tried on a
small map; where they can't be compiled or give something else than PyTorch's operators, those are used, as with
``CP_VISION_GPU_KERNEL=0`` and under ``torch.use_deterministic_algorithms``: gradients of cells are added in any order.

Shapes: T output tokens, N cells of all levels and images, C channels, as in ``linear_plain``. A program has BLOCK
tokens, and WIDE channels at a time.

Not run on a GPU here; the tests run it on the CPU by Triton's interpreter and compile it for three GPUs.
"""

# Triton's functions take no annotations but constexpr.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import logging
import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from .linear_plain import WindowTables, linear_average, linear_average_gradients
from .pyramid import LEVEL_END
from .windows import LEAST_EXPONENT, LEAST_SUPPORT, REACH, window_taps

__all__ = ["FusedWindows", "is_usable"]

_BLOCK, _WIDE = 16, 64

# Kernels see no global values but these.
_LEVEL_END = tl.constexpr(LEVEL_END)
_LEAST_EXPONENT = tl.constexpr(LEAST_EXPONENT)
_LEAST_SUPPORT = tl.constexpr(LEAST_SUPPORT)
_REACH = tl.constexpr(REACH)

_logger = logging.getLogger("cp_vision")


class FusedWindows(WindowTables):
    """Windows that are known by their supports alone."""

    def place(self, support_Bhw: Tensor, mass_N: Tensor) -> Tensor:
        """Place windows of these supports; the mass in each, (T,)."""
        self._support = support_Bhw.contiguous()
        total_T = mass_N.new_empty(support_Bhw.numel())
        ones_T = torch.ones_like(total_T)
        self._run(_sum_kernel, total_T.numel(), 1, mass_N, ones_T, total_T)
        return total_T

    def average(self, cells_NC: Tensor, inverse_T: Tensor) -> Tensor:
        """Sums over the windows times ``inverse_T``, (T, C)."""
        average_TC = cells_NC.new_empty(len(inverse_T), cells_NC.shape[1])
        self._run(_sum_kernel, *average_TC.shape, cells_NC, inverse_T, average_TC)
        return average_TC

    def gradients(
        self, gradient_TC: Tensor, cells_NC: Tensor, mass_N: Tensor, inverse_T: Tensor, moved_T: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The averages (T, C), and gradients by the supports (T,), the cells (N, C) and their mass (N,)."""
        tokens, channels = gradient_TC.shape
        average_TC, for_support_T = torch.empty_like(gradient_TC.contiguous()), torch.empty_like(inverse_T)
        for_cells_NC, for_mass_N = torch.zeros_like(cells_NC), torch.zeros_like(mass_N)
        given = (gradient_TC.contiguous(), cells_NC, mass_N, inverse_T, moved_T.to(torch.int8))
        # Programs of all channels, since the gradient by a support is a sum over them.
        made = (average_TC, for_support_T, for_cells_NC, for_mass_N)
        self._run(_gradient_kernel, tokens, channels, *given, *made, programs=1)
        return average_TC, for_support_T, for_cells_NC, for_mass_N

    def _run(
        self, kernel: triton.JITFunction, tokens: int, channels: int, *tensors: Tensor, programs: int | None = None
    ) -> None:
        if not tokens or not channels:
            return
        wide = min(_WIDE, triton.next_power_of_2(channels))
        height, width = self.grid
        grid = (triton.cdiv(tokens, _BLOCK), programs or triton.cdiv(channels, wide))
        with torch.cuda.device_of(self._support):
            kernel[grid](
                *(self._support, *tensors, tokens, channels, height, width, *self._support.shape[1:], self.stride),
                **{"LEVELS": self.levels, "ROWS": window_taps(height, self.stride)},
                **{"COLUMNS": window_taps(width, self.stride), "BLOCK": _BLOCK, "WIDE": wide},
            )


@functools.cache
def is_usable(device: torch.device) -> bool:
    """Whether the kernels run on this device and do there what PyTorch's operators do."""
    if os.environ.get("CP_VISION_GPU_KERNEL") == "0":
        return False
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(2, 20, 15, 13, generator=generator).to(device) for _ in range(2))
    weight, sigma = (torch.rand(2, 15, 13, generator=generator).to(device) for _ in range(2))
    arguments = (x, weight, 6 * sigma, torch.linspace(-1, 1, 20, device=device), 1, 3)
    try:
        found, wanted = (
            (linear_average(*arguments, False, kind), *linear_average_gradients(gradient, *arguments, kind))
            for kind in (FusedWindows, WindowTables)
        )
        for got, right in zip(found, wanted, strict=True):
            torch.testing.assert_close(got, right, rtol=1e-3, atol=1e-3)
    # Whatever Triton raises where it can't compile, so that a pool is never worse than without it.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        _logger.warning("context pools run without their GPU kernels: %s", reason[0])
        return False
    return True


@triton.jit
def _find_window(
    support,
    token,
    live,
    height,
    width,
    rows,
    columns,
    stride,
    LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Supports of tokens, their spare variance, where their level's cells begin, both axes as ``_axis`` has them."""
    sigma = tl.load(support + token, live, other=1.0)
    sigma = tl.where(sigma < _LEAST_SUPPORT, _LEAST_SUPPORT, sigma)
    image = token // (rows * columns)
    level, spared, before = tl.zeros_like(image), tl.zeros_like(sigma), tl.zeros_like(image)
    top, down, left, across = before, before + height, before, before + width
    # Of each level, as level_ends, level_variance and axis_cells of the module ``pyramid`` say.
    end, variance, cells = _LEVEL_END, 0.0, 0
    row, row_count, column, column_count = 0, height, 0, width
    for each in tl.static_range(LEVELS):
        own = level == each
        spared, before = tl.where(own, variance, spared), tl.where(own, cells, before)
        top, down = tl.where(own, row, top), tl.where(own, row_count, down)
        left, across = tl.where(own, column, left), tl.where(own, column_count, across)
        cells += row_count * column_count
        if each + 1 < LEVELS:
            level += (sigma > end).to(tl.int32)
            end, variance = 2 * end, 4 * variance + 1.25
            if ROWS > 1:
                row, row_count = _next_cells(row, row_count)
            if COLUMNS > 1:
                column, column_count = _next_cells(column, column_count)
    length = tl.exp2(level.to(tl.float32))
    base = image.to(tl.int64) * cells + before
    of_rows = _axis(token // columns % rows, stride, length, top, down)
    return sigma, sigma * sigma - spared, base, of_rows, _axis(token % columns, stride, length, left, across)


@triton.jit
def _next_cells(first, count):
    """First cell and number of cells of the next level. Shifts round down, divisions of negative numbers don't here."""
    start = (first - 2) >> 1
    return start, ((first + count + 1) >> 1) - start + 1


@triton.jit
def _axis(output, stride, length, first, count):
    """Places in cells, length of a cell in pixels, first cell and their number, squared distance to the nearest."""
    place = (output * stride + (stride - 1) * 0.5 + 0.5) / length - 0.5
    nearest = tl.minimum(tl.maximum(tl.floor(place + 0.5), first.to(tl.float32)), (first + count - 1).to(tl.float32))
    away = (place - nearest) * length
    return place, length, first, count, away * away


@triton.jit
def _tap(tap, axis, precision, TAPS: tl.constexpr):
    """Which of an axis' cells this tap of the windows reads, its weight, its squared distance past the nearest's."""
    place, length, first, count, nearest = axis
    if TAPS == 1:
        return first * 0, precision * 0 + 1, precision * 0
    cell = tl.ceil(place - _REACH).to(tl.int32) + tap
    away = (place - cell) * length
    squared = away * away - nearest
    exponent = -squared * precision
    # Comparisons that are false for what is no number, so that it stays one.
    far = (cell < first) | (cell >= first + count) | (cell > place + _REACH) | (exponent < _LEAST_EXPONENT)
    weight = tl.where(far, 0.0, tl.exp(tl.where(far, 0.0, exponent)))
    return tl.minimum(tl.maximum(cell - first, 0), count - 1), weight, tl.where(far, 0.0, squared)


@triton.jit
def _sum_kernel(
    support,
    cells,
    factor,
    result,
    tokens,
    channels,
    height,
    width,
    rows,
    columns,
    stride,
    LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Sums over windows times a factor of each, (T, C)."""
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    live, wanted = token < tokens, channel < channels
    _, spare, base, of_rows, of_columns = _find_window(
        support, token, live, height, width, rows, columns, stride, LEVELS, ROWS, COLUMNS
    )
    precision, across = 0.5 / spare, of_columns[3]
    total = tl.zeros((BLOCK, WIDE), tl.float32)
    for i in range(ROWS):
        row, row_weight, _ = _tap(i, of_rows, precision, ROWS)
        for j in range(COLUMNS):
            column, column_weight, _ = _tap(j, of_columns, precision, COLUMNS)
            weight = row_weight * column_weight
            cell = (base + row * across + column) * channels
            read = (live & (weight != 0))[:, None] & wanted[None, :]
            total += weight[:, None] * tl.load(cells + cell[:, None] + channel[None, :], read, other=0.0)
    scaled = total * tl.load(factor + token, live, other=0.0)[:, None]
    place = token.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(result + place, scaled, live[:, None] & wanted[None, :])


@triton.jit
def _gradient_kernel(
    support,
    gradient,
    cells,
    mass,
    inverse,
    moved,
    average,
    for_support,
    for_cells,
    for_mass,
    tokens,
    channels,
    height,
    width,
    rows,
    columns,
    stride,
    LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Averages, and gradients by the supports; adds to those by the cells and by their mass."""
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = token < tokens
    sigma, spare, base, of_rows, of_columns = _find_window(
        support, token, live, height, width, rows, columns, stride, LEVELS, ROWS, COLUMNS
    )
    precision, across = 0.5 / spare, of_columns[3]
    share = tl.load(inverse + token, live, other=0.0)
    along, change = tl.zeros_like(sigma), tl.zeros_like(sigma)
    for start in range(0, channels, WIDE):
        channel = start + tl.arange(0, WIDE)
        wanted = live[:, None] & (channel < channels)[None, :]
        place = token.to(tl.int64)[:, None] * channels + channel[None, :]
        given = tl.load(gradient + place, wanted, other=0.0)
        mean, slope = tl.zeros((BLOCK, WIDE), tl.float32), tl.zeros((BLOCK, WIDE), tl.float32)
        for i in range(ROWS):
            row, row_weight, row_squared = _tap(i, of_rows, precision, ROWS)
            for j in range(COLUMNS):
                column, column_weight, squared = _tap(j, of_columns, precision, COLUMNS)
                weight = row_weight * column_weight * share
                cell = ((base + row * across + column) * channels)[:, None] + channel[None, :]
                read = wanted & (weight != 0)[:, None]
                value = weight[:, None] * tl.load(cells + cell, read, other=0.0)
                mean += value
                slope += (squared + row_squared)[:, None] * value
                tl.atomic_add(for_cells + cell, weight[:, None] * given, read)
        tl.store(average + place, mean, wanted)
        along += tl.sum(given * mean, 1)
        change += tl.sum(given * slope, 1)
    for i in range(ROWS):
        row, row_weight, row_squared = _tap(i, of_rows, precision, ROWS)
        for j in range(COLUMNS):
            column, column_weight, squared = _tap(j, of_columns, precision, COLUMNS)
            weight = row_weight * column_weight * share
            cell = base + row * across + column
            read = live & (weight != 0)
            change -= along * (squared + row_squared) * weight * tl.load(mass + cell, read, other=0.0)
            tl.atomic_add(for_mass + cell, -along * weight, read)
    # The derivative of exp(-d^2 / (2 (s^2 - v))) by s is d^2 s / (s^2 - v)^2 times it.
    change *= sigma / (spare * spare)
    tl.store(for_support + token, tl.where(tl.load(moved + token, live, other=1) != 0, 0.0, change), live)
