"""Blocks that give what they gave before, so that a changed model is run from its first change on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cp_vision.fitting.played_block import PlayedBlock
from cp_vision.shared.nested import tensors_in

__all__ = ["Replay"]

# What is kept of all blocks' outputs, at most.
_BYTES = 2**28


class Replay:
    """Outputs of all blocks of a model for some images.

    While blocks are played, what lies before the first of them runs on a single image, since nobody looks at it.

    Where the blocks are no plain functions from a tensor to a tensor, where they give the model another output when
    played, or where they are too large to keep, nothing is played, and the model runs as a whole.

    Args:
        model: in eval mode, unchanged.
        blocks: paths of its blocks, from input to output.
        batches: the images.

    Attributes:
        outputs: of the model, for each batch.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, blocks: Sequence[str], batches: Sequence[Tensor]) -> None:
        self.model, self.blocks, self._batches = model, tuple(blocks), batches
        self._kept: list[list[Tensor]] = [[] for _ in blocks]
        self._now, self._asked, self._is_on, self._is_short = 0, 0, True, True
        hooks = [model.get_submodule(path).register_forward_hook(self._keep(i)) for i, path in enumerate(blocks)]
        self.outputs = []
        try:
            self.outputs = [model(batch) for batch in self]
        finally:
            for hook in hooks:
                hook.remove()
        self._is_on = self._is_on and all(len(kept) == len(batches) for kept in self._kept)
        if self._is_on and not self._is_right():
            # What comes before the blocks is used behind them as well.
            self._is_short = False
            self._is_on = self._is_right()
        if not self._is_on:
            self._kept.clear()

    def __iter__(self) -> Iterator[Tensor]:
        for self._now, batch in enumerate(self._batches):  # noqa: B020
            yield batch

    @contextmanager
    def played_before(self, first: int) -> Iterator[None]:
        """Within, the blocks before this one give what they gave; runs of the model go over this object."""
        if not self._is_on or first == 0:
            yield
            return
        originals = [self.model.get_submodule(path) for path in self.blocks[:first]]
        for number, path in enumerate(self.blocks[:first]):
            self.model.set_submodule(path, PlayedBlock(functools.partial(self.now, number), lambda: self._asked))
        hook = self.model.register_forward_pre_hook(self._first_image)
        try:
            yield
        finally:
            hook.remove()
            for path, original in zip(self.blocks, originals, strict=False):
                self.model.set_submodule(path, original)

    def now(self, number: int) -> Tensor:
        """What a block gave for the batch that is running."""
        return self._kept[number][self._now]

    def _first_image(self, module: nn.Module, args: Any) -> Any:
        images, *others = args
        self._asked = len(images)
        return (images[:1] if self._is_short else images, *others)

    def _keep(self, number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            kept = sum(tensor.nbytes for outputs in self._kept for tensor in outputs)
            self._is_on = self._is_on and isinstance(output, Tensor) and kept + output.nbytes <= _BYTES
            if self._is_on:
                # What comes after a block may work in place.
                self._kept[number].append(output.clone())

        return hook

    def _is_right(self) -> bool:
        """Whether outputs are the same with one block played, half of them and all, by the first images."""
        wanted, count = tensors_in(self.outputs[0]), len(self.blocks)
        for first in sorted({min(1, count), count // 2, count}):
            with self.played_before(first):
                try:
                    given = tensors_in(self.model(next(iter(self))))
                except RuntimeError:
                    # Of other numbers of images.
                    return False
            if not all(torch.equal(a, b) for a, b in zip(given, wanted, strict=True)):
                return False
        return True
