"""Where a model's passes begin: at a block before which nothing changes any more.

While stand-ins are fitted from input to output, what lies before the one in turn is run again and again to the same
end. So the output of the last block before it is kept for all images, and the blocks before it aren't run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..shared.nested import tensors_in
from .played_block import PlayedBlock

__all__ = ["Frontier", "is_chain"]

# What is kept at most; where it would be more, models are run from the start.
_BYTES = 2**28


class Frontier:
    """Keeps what goes into a block of a model, for each batch.

    Args:
        model: the model; blocks are put back where they were.
        blocks: paths of its blocks, from input to output; some may be replaced.

    Attributes:
        first: number of the block that runs begin at.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[str]) -> None:
        self.model, self.blocks, self.first = model, tuple(blocks), 0
        self._kept: list[Tensor] = []
        self._shapes: dict[int, torch.Size] = {}
        self._now, self._is_off = 0, False

    @contextmanager
    def moving(self, to: int) -> Iterator[None]:
        """Within, runs begin at the frontier; after, that is at another block, where all batches were run.

        Say :meth:`at` before each batch.

        Args:
            to: number of the block.
        """
        to = max(to, self.first)
        kept: list[Tensor] = []
        hooks = [
            self.model.get_submodule(self.blocks[number]).register_forward_hook(self._keep(number, to, kept))
            for number in (range(self.first, to) if not self._is_off else ())
        ]
        originals = [(path, self.model.get_submodule(path)) for path in self.blocks[: self.first]]
        for number, (path, _) in enumerate(originals):
            self.model.set_submodule(path, PlayedBlock(self._output_of(number)))
        try:
            yield
        finally:
            for path, original in originals:
                self.model.set_submodule(path, original)
            for hook in hooks:
                hook.remove()
        if kept and not self._is_off:
            self._kept, self.first = kept, to

    def at(self, batch: int) -> None:
        """Say which batch is run next."""
        self._now = batch

    def _output_of(self, number: int) -> Any:
        if number == self.first - 1:
            return lambda: self._kept[self._now]
        # Nobody looks at it: the next block gives what it gave.
        shape = self._shapes[number]
        return lambda: self._kept[self._now].new_zeros(()).expand(len(self._kept[self._now]), *shape)

    def _keep(self, number: int, to: int, kept: list[Tensor]) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._is_off or not isinstance(output, Tensor):
                self._is_off = True
                return
            self._shapes[number] = output.shape[1:]
            if number == to - 1:
                kept.append(output.clone())
                self._is_off = sum(one.nbytes for one in kept) > _BYTES

        return hook


def is_chain(model: nn.Module, blocks: Sequence[str], batches: Iterable[Tensor]) -> bool:
    """Whether each block's output is all that the rest of the model sees of it and of those before, by two images."""
    images = next(iter(batches))[:2]
    wanted = tensors_in(model(images))
    frontier = Frontier(model, blocks)
    for to in range(1, len(blocks)):
        with frontier.moving(to):
            frontier.at(0)
            model(images)
        with frontier.moving(to):
            given = tensors_in(model(images))
        same = [torch.equal(a, b) for a, b in zip(given, wanted, strict=True)]
        if frontier.first != to or not all(same):
            return False
    return True
