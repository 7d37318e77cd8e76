"""Images a second of the base and of what was made of it, at several batch sizes, on this device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .latency import latency_share, model_latency

__all__ = ["Throughput", "rate_in_words"]


def rate_in_words(rate: float) -> str:
    """Images a second: whole numbers, of slow models with three digits."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


class Throughput:
    """Measures images a second; of other models beside the base, so that what else the machine does slows both.

    Args:
        base: in eval mode.
        images: some, of which batches are made.
        batch_sizes: of the batches.

    Attributes:
        of_base: images a second of the base, by batch size.
    """

    def __init__(self, base: nn.Module, images: Tensor, batch_sizes: Sequence[int]) -> None:
        self._base = base
        self._batches = {size: images[torch.arange(size) % len(images)] for size in batch_sizes}
        self.of_base: Mapping[int, float] = {
            size: 1e9 * size / model_latency(base, batch) for size, batch in self._batches.items()
        }

    def of(self, model: nn.Module) -> dict[int, float]:
        """Images a second of a model, by batch size: the base's, over the median share of its time in paired runs."""
        return {size: self.of_base[size] / latency_share(model, self._base, b) for size, b in self._batches.items()}
