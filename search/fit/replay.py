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
        self._now, self._is_on = 0, True
        hooks = [model.get_submodule(path).register_forward_hook(self._keep(i)) for i, path in enumerate(blocks)]
        self.outputs = []
        try:
            self.outputs = [model(batch) for batch in self]
        finally:
            for hook in hooks:
                hook.remove()
        self._is_on = self._is_on and all(len(kept) == len(batches) for kept in self._kept) and self._is_right()
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
            self.model.set_submodule(path, PlayedBlock(functools.partial(self.now, number)))
        try:
            yield
        finally:
            for path, original in zip(self.blocks, originals, strict=False):
                self.model.set_submodule(path, original)

    def now(self, number: int) -> Tensor:
        """What a block gave for the batch that is running."""
        return self._kept[number][self._now]

    def _keep(self, number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            kept = sum(tensor.nbytes for outputs in self._kept for tensor in outputs)
            self._is_on = self._is_on and isinstance(output, Tensor) and kept + output.nbytes <= _BYTES
            if self._is_on:
                # What comes after a block may work in place.
                self._kept[number].append(output.clone())

        return hook

    def _is_right(self) -> bool:
        with self.played_before(len(self.blocks)):
            for batch, wanted in zip(self, self.outputs, strict=True):
                given = tensors_in(self.model(batch))
                if not all(torch.equal(a, b) for a, b in zip(given, tensors_in(wanted), strict=True)):
                    return False
                break
        return True
