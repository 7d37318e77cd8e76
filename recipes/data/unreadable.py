"""Images that can't be read: counted, reported, and skipped up to a limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import listed

from . import MAX_UNREADABLE
from .images import Images, UnreadableImageError

__all__ = ["Unreadable"]


class Unreadable:
    """Which images of a data set were found unreadable, shared with the processes that load them.

    Args:
        images: the data set.
        limit: how many may be.
    """

    def __init__(self, images: Images, limit: int = MAX_UNREADABLE) -> None:
        self.images, self.limit = images, limit
        # Shared, so that the main process sees what workers find.
        self.table: Tensor = torch.zeros(len(images), dtype=torch.bool).share_memory_()

    def read(self, index: int) -> tuple[Any, int] | None:
        """An image with its class, or None where it can't be read."""
        if self.table[index]:
            return None
        try:
            return self.images[index]
        except UnreadableImageError:
            self.table[index] = True
            return None

    def read_near(self, index: int) -> tuple[Any, int]:
        """An image with its class, or where it can't be read, those of the next one that can.

        Beyond the limit the last one tried raises ``UnreadableImageError``.
        """
        for other in range(index, index + len(self.images)):
            sample = self.read(other % len(self.images))
            if sample is not None:
                return sample
            if self.count > self.limit:
                break
        raise UnreadableImageError(str(self))

    @property
    def found(self) -> dict[int, str]:
        """Which were found so far: their names by index."""
        return {int(index): self.images.describe(int(index)) for index in self.table.nonzero()[:, 0]}

    def look_again(self, found: Mapping[int, str]) -> None:
        """Read once more what was found before, by index and name: some may have been mended, or be others by now."""
        for index, name in found.items():
            if index < len(self.images) and self.images.describe(index) == name:
                self.read(index)

    @property
    def count(self) -> int:
        """How many were found so far."""
        return int(self.table.sum())

    def check(self) -> None:
        """Raise a CommandError where there are more than the limit."""
        if self.count > self.limit:
            raise self.error()

    def error(self) -> CommandError:
        """The error of a training that can't go on without these images."""
        return CommandError(
            f"{self}; more than the {self.limit} that can be skipped (cp-train --max-unreadable); mend or remove them"
        )

    def __str__(self) -> str:
        names = list(self.found.values())
        return f"{len(names)} unreadable image{'s' if len(names) != 1 else ''}: {listed(names, 3)}"
