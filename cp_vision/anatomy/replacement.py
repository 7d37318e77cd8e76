"""What stands where blocks, or half of one, were replaced.

Shapes: B batch, N = P + H W tokens, P prefix tokens, C channels, H x W grid: what is replaced maps (B, N, C),
(B, C, H, W) or (B, H, W, C) to the same shape. Stand-ins work on ``x_BCHW`` and ``x_BPC``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch import cat as concatenate

from ..layers.context_pool_2d import record_call
from .block import DroppedBlock, Layout
from .token_grid import as_map

__all__ = ["REPLACEMENT", "Replacement", "RestOfRun"]

# The child that does the work has this name, hence the keys ``<first block>.context_pool_block.*``.
REPLACEMENT = "context_pool_block"


class RestOfRun(DroppedBlock):
    """Stands where the second and further blocks of a replaced run were, and passes its input on."""


class Replacement(nn.Module):
    """Stands where the first block of a run was, or half of a block, and gives a stand-in its map as (B, C, H, W).

    Args:
        name: of what is replaced, as :func:`cp_vision.replace_blocks` takes it.
        options: of the stand-in, as it takes them; JSON values.
        stand_in: such as a :class:`cp_vision.ContextPoolBlock`.
        layout: of what is replaced.
        grid: says height and width where tokens come without them.
        pair: whether what is replaced gives a tuple (torch's attention).
        act: the activation that what is replaced ends with, where the stand-in gives what comes before it.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        stand_in: nn.Module,
        layout: Layout,
        grid: Callable[[], tuple[int, int]] | None = None,
        pair: bool = False,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.name, self.options, self.act = name, dict(options), act
        self.layout, self.grid, self.pair = layout, grid, pair
        self.add_module(REPLACEMENT, stand_in)

    @property
    def stand_in(self) -> Any:
        """The module that does the work."""
        return self.get_submodule(REPLACEMENT)

    def forward(self, x: Tensor, *args: object, map_size: tuple[int, int] | None = None, **kwargs: object) -> Any:
        """Map ``x`` to the same shape; other arguments (attention masks) have no meaning here.

        In a graph that ``torch.fx`` traces, ``map_size`` is the grid where that is the image's.
        """
        if isinstance(x, fx.Proxy):
            size = self.grid() if self.grid is not None else ()
            is_open = any(isinstance(side, fx.Proxy) for side in size)
            return record_call(self, x, **({"map_size": size} if is_open else {}))
        y = self.before_act(x, map_size)
        if self.act is not None:
            y = self.act(y)
        return (y, None) if self.pair else y

    def before_act(self, x: Tensor, map_size: tuple[int, int] | None = None) -> Tensor:
        """What the stand-in gives, in the shape of ``x``."""
        if self.layout == "tokens" and getattr(self.stand_in, "takes_tokens", False):
            of_tokens: Tensor = self.stand_in.of_tokens(x)
            return of_tokens
        maps = self.as_maps(x, map_size)
        return self._as_given(*(self.stand_in(*maps) if len(maps) == 2 else (self.stand_in(*maps), None)))

    def as_maps(self, x: Tensor, map_size: tuple[int, int] | None = None) -> tuple[Tensor, ...]:
        """What the stand-in works on: the grid as (B, C, H, W) and, where there are some, prefix tokens (B, P, C)."""
        if self.layout == "NCHW":
            return (x,)
        if self.layout == "NHWC":
            return (x.permute(0, 3, 1, 2),)
        prefix = self.stand_in.prefix
        # Tokens in a row are as good as a grid to a stand-in without pools.
        grid = map_size or (self.grid() if self.grid is not None else (1, x.shape[1] - prefix))
        x_BPC, patches = x.tensor_split([prefix], 1)
        x_BCHW = as_map(patches, grid)
        return (x_BCHW, x_BPC) if prefix else (x_BCHW,)

    def _as_given(self, y_BCHW: Tensor, y_BPC: Tensor | None) -> Tensor:
        if self.layout == "NCHW":
            return y_BCHW
        if self.layout == "NHWC":
            return y_BCHW.permute(0, 2, 3, 1)
        patches = y_BCHW.flatten(2).mT
        return patches if y_BPC is None else concatenate([y_BPC, patches], 1)

    def set_input_size(self, *args: object, **kwargs: object) -> None:
        """Do nothing: a stage of a Swin transformer tells every block its new size."""

    def set_window_size(self, window_size: tuple[int, int]) -> None:
        """Pass on what a block of a Swin transformer tells its attention, where heads of it are kept."""
        kept: Any = getattr(self.stand_in, "kept", None)
        if hasattr(kept, "set_window_size"):
            kept.set_window_size(window_size)

    def extra_repr(self) -> str:
        """Show what was replaced."""
        return f"{self.name!r}, layout={self.layout!r}"
