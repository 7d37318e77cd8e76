"""Batches that every candidate is scored on: read once, and kept where they are few."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator

from torch import Tensor

__all__ = ["Batches", "KeptBatches"]

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images (B, C, H, W) and targets."""


class KeptBatches:
    """Reads batches once and gives the same again, as far as they fit into memory; the others are read each time.

    With shared weights a score takes a forward pass; to read and decode the images would take longer.

    Args:
        most_bytes: what is kept at most, of all batches together.
    """

    def __init__(self, most_bytes: int = 1 << 30) -> None:
        self.left = most_bytes
        self._kept: dict[Hashable, list[tuple[Tensor, Tensor]]] = {}
        self._large: set[Hashable] = set()

    def get(
        self, key: Hashable, read: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """The batches of this name.

        Args:
            key: tells them from others.
            read: gives them, always the same.
        """
        if key in self._kept:
            return self._kept[key]
        return read() if key in self._large else self._keeping(key, read())

    def _keeping(self, key: Hashable, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
        kept: list[tuple[Tensor, Tensor]] = []
        size = 0
        for batch in batches:
            size += sum(part.nbytes for part in batch)
            if size > self.left:
                self._large.add(key)
                kept = []
            if key not in self._large:
                kept.append(batch)
            yield batch
        if key not in self._large:
            self._kept[key], self.left = kept, self.left - size
