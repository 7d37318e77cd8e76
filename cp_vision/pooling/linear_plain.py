"""The linear backend in PyTorch's own operators: its result and its gradients, on any device and in any float type.

Shapes: B batch, C channels, H x W pixels, h x w outputs, T = B h w output tokens, N cells of all levels and images,
t x t cells of a window. ``x_BCHW``, ``weight_BHW``, ``sigma_Bhw``, ``gate_C``, ``cells_NC``, ``mass_N``, ``y_BChw``.

``y_i = sum_t h_it c_t / sum_t h_it m_t`` over the cells t of a window: h its weights, c the cells' sums of weighted
tokens, m the cells' sums of weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .exact import under_transform
from .pyramid import axis_cells, build_pyramid, level_ends, pyramid_gradient
from .windows import find_windows, outer

__all__ = [
    "FIRST_FLOOR",
    "FLOOR_STEP",
    "LEAST_TOTAL",
    "WindowTables",
    "is_traced",
    "linear_average",
    "linear_average_gradients",
]

# Windows whose cells weigh less than this together have nothing within reach of their support, as where tokens are
# left out. Then the least support of a ladder of them counts that reaches something.
LEAST_TOTAL = 1e-30
FIRST_FLOOR = 0.25
FLOOR_STEP = 2**0.5

# Graphs for ONNX have windows as matrices up to so many cells per image, as maps of 32 x 32 have.
_MATRIX_CELLS = 1400


def is_traced() -> bool:
    """Whether what runs is being exported or transformed by ``torch.func``, so that no branch may look at values."""
    return torch.compiler.is_exporting() or under_transform()


class WindowTables:
    """Windows as tables of indices and weights, which PyTorch's operators sum over."""

    def __init__(self, grid: tuple[int, int], batch: int, stride: int, levels: int) -> None:
        self.grid, self.batch, self.stride, self.levels = grid, batch, stride, levels

    def place(self, support_Bhw: Tensor, mass_N: Tensor) -> Tensor:
        """Place windows of these supports; the mass in each, (T,)."""
        self._windows = find_windows(support_Bhw, self.grid, self.stride, self.levels)
        weights = outer(self._windows.rows, self._windows.columns)
        return _sum_windows(mass_N[:, None], self._windows.cells, weights, self.batch).squeeze(1)

    def average(self, cells_NC: Tensor, inverse_T: Tensor) -> Tensor:
        """Sums over the windows times ``inverse_T``, (T, C)."""
        weights = outer(self._windows.rows * inverse_T[:, None], self._windows.columns)
        return _sum_windows(cells_NC, self._windows.cells, weights, self.batch)

    def gradients(
        self, gradient_TC: Tensor, cells_NC: Tensor, mass_N: Tensor, inverse_T: Tensor, moved_T: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The averages (T, C), and gradients by the supports (T,), the cells (N, C) and their mass (N,).

        Args:
            gradient_TC: by the averages.
            cells_NC: sums of weighted tokens.
            mass_N: sums of weights.
            inverse_T: one over the mass in each window.
            moved_T: whose support was raised until it reached a token, and so has no gradient.
        """
        index, rows, columns, row_slopes, column_slopes = self._windows
        weights = outer(rows * inverse_T[:, None], columns)
        inverse = inverse_T.masked_fill(moved_T, 0.0)[:, None]
        slopes = outer(row_slopes * inverse, columns) + outer(rows * inverse, column_slopes)
        average_TC = _sum_windows(cells_NC, index, weights, self.batch)
        along_T = (gradient_TC * average_TC).sum(1)
        mass_slope_T = _sum_windows(mass_N[:, None], index, slopes, self.batch).squeeze(1)
        slope_TC = _sum_windows(cells_NC, index, slopes, self.batch)
        for_support_T = (gradient_TC * slope_TC).sum(1) - along_T * mass_slope_T
        for_cells_NC = _scatter(index, weights, gradient_TC, len(cells_NC))
        for_mass_N = _scatter(index, weights, -along_T[:, None], len(cells_NC)).squeeze(1)
        return average_TC, for_support_T, for_cells_NC, for_mass_N


def linear_average(
    x_BCHW: Tensor,
    weight_BHW: Tensor,
    sigma_Bhw: Tensor,
    gate_C: Tensor | None,
    stride: int,
    levels: int,
    full: bool,
    kind: type[WindowTables] = WindowTables,
) -> Tensor:
    """Average the tokens around every output, and mix them with the tokens themselves where there is a gate.

    Args:
        x_BCHW: tokens, float32 or float64.
        weight_BHW: their weights, not negative.
        sigma_Bhw: supports in pixels, at most those that the levels serve.
        gate_C: how far each channel goes from the tokens to the averages, with stride 1; None: all the way.
        stride: pixels between outputs.
        levels: number of levels.
        full: whether every output has a token within reach; if not, that is seen to.
        kind: what sums over windows.
    """
    cells_NC, mass_N = _cells(x_BCHW, weight_BHW, levels)
    windows = kind((x_BCHW.shape[2], x_BCHW.shape[3]), x_BCHW.shape[0], stride, levels)
    inverse_T, _ = _reach(windows, mass_N, sigma_Bhw, full)
    average_TC = windows.average(cells_NC, inverse_T)
    y_BChw = average_TC.unflatten(0, sigma_Bhw.shape).permute(0, 3, 1, 2)
    return y_BChw if gate_C is None else torch.lerp(x_BCHW, y_BChw, gate_C[:, None, None])


def linear_average_gradients(
    gradient_BChw: Tensor,
    x_BCHW: Tensor,
    weight_BHW: Tensor,
    sigma_Bhw: Tensor,
    gate_C: Tensor | None,
    stride: int,
    levels: int,
    kind: type[WindowTables] = WindowTables,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients by the four tensors of :func:`linear_average`, given that by its result."""
    cells_NC, mass_N = _cells(x_BCHW, weight_BHW, levels)
    windows = kind((x_BCHW.shape[2], x_BCHW.shape[3]), x_BCHW.shape[0], stride, levels)
    inverse_T, moved_T = _reach(windows, mass_N, sigma_Bhw, False)
    given_TC = gradient_BChw.permute(0, 2, 3, 1).flatten(0, 2)
    gated_TC = given_TC if gate_C is None else given_TC * gate_C
    average_TC, for_sigma_T, for_cells_NC, for_mass_N = windows.gradients(
        gated_TC, cells_NC, mass_N, inverse_T, moved_T
    )
    for_tokens = _map_gradient(for_cells_NC, x_BCHW.shape, levels)
    for_weight = _map_gradient(for_mass_N[:, None], (len(x_BCHW), 1, *x_BCHW.shape[2:]), levels).squeeze(1)
    for_x, for_gate = for_tokens * weight_BHW[:, None], None
    if gate_C is not None:
        for_x = for_x + gradient_BChw * (1 - gate_C)[:, None, None]
        for_gate = (given_TC * average_TC).sum(0) - (gradient_BChw * x_BCHW).sum((0, 2, 3))
    return for_x, for_weight + (for_tokens * x_BCHW).sum(1), for_sigma_T.view_as(sigma_Bhw), for_gate


def _cells(x_BCHW: Tensor, weight_BHW: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """The cells of all levels: sums of weighted tokens (N, C) and of weights (N,)."""
    weight = weight_BHW[:, None]
    tokens, mass = (build_pyramid(each, levels) for each in (x_BCHW * weight, weight))
    cells = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in tokens], 1).flatten(0, 1)
    return cells, torch.cat([level.flatten(1) for level in mass], 1).flatten()


def _reach(windows: WindowTables, mass_N: Tensor, sigma_Bhw: Tensor, full: bool) -> tuple[Tensor, Tensor]:
    """Place the windows; one over the mass in each, and whose support was raised for that, (T,) both."""
    total, support = windows.place(sigma_Bhw, mass_N), sigma_Bhw
    floor = FIRST_FLOOR
    while not full and floor <= level_ends(windows.levels)[-1]:
        short = total.view_as(support) < LEAST_TOTAL
        if not is_traced() and not short.any():
            break
        support = torch.where(short, support.clamp_min(floor), support)
        total = windows.place(support, mass_N)
        floor *= FLOOR_STEP
    nothing = total < LEAST_TOTAL
    inverse = total.masked_fill(nothing, 1.0).reciprocal().masked_fill(nothing, 0.0)
    return inverse, (support > sigma_Bhw).flatten()


def _sum_windows(cells_NC: Tensor, index: Tensor, weights: Tensor, batch: int) -> Tensor:
    """``sum_t weights_it cells[index_it]``, (T, C), for so many images."""
    if torch.onnx.is_in_onnx_export():
        # ONNX has no bags.
        if cells_NC.shape[1] == 1:
            return (F.embedding(index, cells_NC) * weights[:, :, None]).sum(1)
        cells_BKC = cells_NC.unflatten(0, (batch, -1))
        count = cells_BKC.shape[1]
        if isinstance(count, int) and count <= _MATRIX_CELLS:
            # A product with the matrix of an image's windows is faster, zeros and all.
            matrix = weights.new_zeros(weights.shape[0], count).scatter_add(1, index % count, weights)
            return (matrix.unflatten(0, (batch, -1)) @ cells_BKC).flatten(0, 1)
        # A few cells at a time keep the products small.
        total = cells_NC.new_zeros(())
        for rows, shares in zip(index.split(10, 1), weights.split(10, 1), strict=True):
            total = total + (shares[:, None, :] @ F.embedding(rows, cells_NC)).squeeze(1)
        return total
    return F.embedding_bag(index, cells_NC, per_sample_weights=weights, mode="sum")


def _scatter(index: Tensor, weights: Tensor, values_TC: Tensor, cells: int) -> Tensor:
    """Add every token's values to the cells of its window, (N, C).

    Sorted by cell these are sums over bags again, which is faster than adding to places in any order.
    """
    found, order = index.flatten().sort()
    tokens = order.div(index.shape[1], rounding_mode="floor")
    starts = torch.searchsorted(found, torch.arange(cells, device=found.device, dtype=found.dtype))
    return F.embedding_bag(tokens, values_TC, starts, per_sample_weights=weights.flatten()[order], mode="sum")


def _map_gradient(for_cells_NC: Tensor, shape: tuple[int, ...], levels: int) -> Tensor:
    """What the gradient by the cells gives to the map that they were made of, (B, C, H, W)."""
    batch, _, height, width = shape
    rows, columns = ([number for _, number in axis_cells(size, levels)] for size in (height, width))
    sizes = list(zip(rows, columns, strict=True))
    parts = for_cells_NC.unflatten(0, (batch, -1)).split([down * across for down, across in sizes], 1)
    for_levels = [part.unflatten(1, size).permute(0, 3, 1, 2) for part, size in zip(parts, sizes, strict=True)]
    return pyramid_gradient(for_levels, (height, width))
