"""A module of a model as the model calls it.

Shapes: B batch, C channels, H x W grid, N tokens: inputs and outputs are kept as (C, H, W), (H, W, C) or (N, C).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..cost.macs import count_module

__all__ = ["Call"]


class Call(nn.Module):
    """A module as its model calls it: with the other arguments that it got there, it runs on its own.

    Args:
        module: of a throw-away model on the meta device, which is run after this.

    Attributes:
        input: shape of its first argument without the batch, once the model ran.
        output: shape of its output, likewise; of several outputs, the first.
        count: how many inputs it got for one image (windows).
        pair: whether it gives a tuple.
        calls: how often it was called.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.input: tuple[int, ...] = ()
        self.output: tuple[int, ...] = ()
        self.count, self.pair, self.calls = 0, False, 0
        self.rest: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        before = module.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True)
        self.handles = [before, module.register_forward_hook(self._after)]

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.input, self.count, self.rest, self.named = tuple(args[0].shape[1:]), len(args[0]), args[1:], kwargs
        self.calls += 1

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.pair = isinstance(output, tuple)
        first = output[0] if self.pair else output
        self.output = tuple(first.shape[1:]) if isinstance(first, Tensor) else ()

    def macs(self) -> int:
        """Cost of the call for one image."""
        for handle in self.handles:
            handle.remove()
        return count_module(self, (self.count, *self.input))

    def forward(self, x: Tensor) -> Any:
        """Call the module again, with all that it got of one image, (1, count, ...)."""
        return self.module(x.flatten(0, 1), *self.rest, **self.named)
