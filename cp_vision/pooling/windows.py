"""Which cells of the scale space every output token reads, and with what weights."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .scale_space import axis_cells, is_shifted, scale_ends, table_layout, window_table

__all__ = ["Reading", "Windows", "find_windows"]


class Reading(NamedTuple):
    """Windows of T output tokens, R x S cells each: where they lie, and their weights as products of two axes'.

    The slopes are the derivatives of the weights by the support.
    """

    cells: Tensor  # (T, R * S), indices among those of the whole batch
    weights: tuple[Tensor, Tensor]  # (T, R) and (T, S)
    slopes: tuple[Tensor, Tensor]  # (T, R) and (T, S)


class Windows:
    """The windows of all scales for one size of map.

    Args:
        grid: input height and width.
        outputs: output height and width.
        stride: pixels between outputs.
        count: number of scales.
        taps: cells in a window along each axis; along an axis of one pixel always one.
        signed: whether their weights may be negative.
        device: where the indices lie.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        outputs: tuple[int, int],
        stride: int,
        count: int,
        taps: int,
        signed: bool,
        device: torch.device,
    ) -> None:
        half, self.count = stride % 2 == 0, count
        weights = _find_table(count, taps, half, signed, device)
        # Every row has the weights and how they change to the next row.
        self.table = torch.cat([weights[:-1], weights.diff(dim=0)], 1)
        height, width = (axis_cells(size, count) for size in grid)
        # Of every scale, how many cells an image has in the scales before it and in its own.
        places, cells = [], 0
        for (_, rows), (_, columns) in zip(height, width, strict=True):
            places.append((cells, rows * columns))
            cells = cells + rows * columns
        self.places = torch.tensor(places, dtype=torch.int32, device=device)
        layout = table_layout(count)
        spacing = [columns for _, columns in width]
        self.axes = (
            _Axis(outputs[0], stride, height, spacing, layout, taps, device),
            _Axis(outputs[1], stride, width, [1] * count, layout, taps, device),
        )
        ends = scale_ends(count, half)
        begins, steps = [0.0, *ends[:-1]], [steps for _, _, steps in layout]
        rates = [step / (end - begin) for step, begin, end in zip(steps, begins, ends, strict=True)]
        self.bounds, self.end = torch.tensor(ends[:-1], device=device), ends[-1]
        self.scales = torch.tensor(list(zip(begins, rates, [step - 1.0 for step in steps], strict=True)), device=device)

    def read(self, support: Tensor) -> Reading:
        """Pick every token's scale and look up its window.

        Args:
            support: sigma in pixels, (B, height, width) of the outputs.
        """
        batch, height, width = support.shape
        device = support.device
        # Past the last scale's end the weights stay as they are there.
        scale = torch.bucketize(support, self.bounds)
        begin, rate, last = F.embedding(scale, self.scales).to(support.dtype).unbind(-1)
        place = (support.clamp(0.0, self.end) - begin) * rate
        # A support that is no number has some window, and gives an average that is none.
        step = place.nan_to_num(0.0).floor().minimum(last)
        part, step = (place - step)[..., None], step.long()
        rate = rate.masked_fill(support > self.end, 0.0)[..., None]
        positions = (torch.arange(height, device=device)[:, None], torch.arange(width, device=device))
        found = [
            axis.read(scale, position, step, part, rate, self.table)
            for axis, position in zip(self.axes, positions, strict=True)
        ]
        (rows, *row_weights), (columns, *column_weights) = found
        before, own = F.embedding(scale, self.places).unbind(-1)
        first = before * batch + own * torch.arange(batch, device=device, dtype=torch.int32)[:, None, None]
        index = (rows + first[..., None])[..., :, None] + columns[..., None, :]
        weights, slopes = zip(row_weights, column_weights, strict=True)
        return Reading(index.flatten(3).flatten(0, 2), weights, slopes)


def _find_table(count: int, taps: int, half: bool, signed: bool, device: torch.device) -> Tensor:
    if torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting():
        return _table_operator(count, taps, half, signed, device)
    return _table(count, taps, half, signed).to(device)


@torch.compiler.assume_constant_result
def _table(count: int, taps: int, half: bool, signed: bool) -> Tensor:
    return torch.from_numpy(window_table(count, taps, half, signed))


# To the compiler the table is the result of an operator: torch 2.14 can't compile a graph that gets two constants from
# one function.
@torch.library.custom_op("cp_vision::window_table", mutates_args=())
def _table_operator(count: int, taps: int, half: bool, signed: bool, device: torch.device) -> Tensor:
    # A copy: the compiled code may write to it.
    return torch.tensor(window_table(count, taps, half, signed), device=device)


@_table_operator.register_fake
def _(count: int, taps: int, half: bool, signed: bool, device: torch.device) -> Tensor:
    table = window_table(count, taps, half, signed)
    return torch.empty(table.shape, dtype=torch.float32, device=device)


class _Axis:
    """The windows along one axis: of every scale k and output m, in row ``k M + m`` of each tensor."""

    def __init__(
        self,
        outputs: int,
        stride: int,
        cells: list[tuple[int, int]],
        spacing: list[int],
        layout: list[tuple[int, int, int]],
        taps: int,
        device: torch.device,
    ) -> None:
        self.outputs, self.taps = outputs, taps
        self.single = cells[0][1] == 1
        window = torch.arange(1 if self.single else taps, device=device)
        pixel = torch.arange(outputs, device=device) * stride + (stride - 1) // 2
        indices, inside, table_rows = [], [], []
        for scale, (first, number) in enumerate(cells):
            size, (first_row, positions, steps) = 2 ** (scale // 2), layout[scale]
            # In half pixels, so that whole numbers do: how far the output is past where cell 0 stands.
            past = 2 * pixel + 1 + (stride % 2 == 0) - (0 if is_shifted(scale) else size)
            cell = past.div(2 * size, rounding_mode="floor") - (taps - 1) // 2 - first
            cell = torch.zeros_like(cell)[:, None] if self.single else cell[:, None] + window
            inside.append((cell >= 0) & (cell < number))
            indices.append(cell.clamp(min=0).clamp(max=number - 1) * spacing[scale])
            table_rows.append(first_row + (pixel % size) * positions // size * (steps + 1))
        self.indices, self.inside = torch.cat(indices).int(), torch.cat(inside).float()
        self.table_rows = torch.cat(table_rows)

    def read(
        self, scale: Tensor, output: Tensor, step: Tensor, part: Tensor, rate: Tensor, table: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Indices (B, height, width, taps), and weights and slopes (B * height * width, taps)."""
        which = scale * self.outputs + output
        indices = F.embedding(which, self.indices)
        if self.single:
            one = torch.ones_like(part).flatten(0, 2)
            return indices, one, torch.zeros_like(one)
        inside = F.embedding(which, self.inside)
        low, change = F.embedding(self.table_rows[which] + step, table).split(self.taps, -1)
        weights, slopes = (low + change * part) * inside, change * inside * rate
        return indices, weights.flatten(0, 2), slopes.flatten(0, 2)


def find_windows(
    x: Tensor, outputs: tuple[int, int], stride: int, count: int, taps: int, signed: bool = False
) -> Windows:
    """The windows for a map (B, C, H, W); kept from call to call, unless a compiler or a fake tensor is at work."""
    arguments = ((x.shape[2], x.shape[3]), outputs, stride, count, taps, signed, x.device)
    if type(x) is Tensor and not torch.compiler.is_compiling():
        with torch.inference_mode(False):
            return _kept_windows(*arguments)
    return Windows(*arguments)


_kept_windows = functools.lru_cache(maxsize=64)(Windows)
