"""What is chosen before stand-ins are fitted, on the first images: parts of blocks that stay, and supports of pools."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .block_sums import BlockSums
from .fitted_block import FittedBlock
from .kept import KeptSums, keep_best
from .supports import set_supports, starting_supports

__all__ = ["Choice"]

# Chosen on so many images. What is fitted to so few is told apart best under strong ridges, and hardly better by more
# channels of what is pooled (blocks and attention halves of DINOv2, blocks of EfficientNet-Lite0).
_FEW = 64
_FEW_RIDGES = (1e-2, 1e-1)
_POOLED_CHANNELS = 192


class Choice:
    """Chooses for some stand-ins, from what each gets and should give for the first images.

    Args:
        fitted: the stand-ins; those that have nothing to choose are left alone.
        teacher: the model that has what they stand in for.
    """

    def __init__(self, fitted: Sequence[FittedBlock], teacher: nn.Module) -> None:
        self._narrow = [one for one in fitted if one.keeps]
        self._pooled = [one for one in fitted if len(getattr(one.stand_in, "pools", ()))]
        self._kept = {
            path: KeptSums(*_half_and_block(teacher, path)) for path in dict.fromkeys(one.path for one in self._narrow)
        }
        self._grids: dict[FittedBlock, tuple[int, int]] = {}
        self._tried: dict[FittedBlock, _Tried] = {}
        # Supports of those that keep a part are tried once that is there.
        self._waiting: dict[FittedBlock, list[tuple[int, Tensor, Tensor]]] = {}
        self._left = _FEW if self._narrow or self._pooled else 0

    @property
    def is_open(self) -> bool:
        """Whether more images are wanted."""
        return self._left > 0

    def add(self, images: int, maps: dict[FittedBlock, tuple[Tensor, Tensor]]) -> None:
        """Add a batch: its number of images, and what each stand-in gets and should give."""
        few = min(images, self._left)
        self._left -= few
        # An image may have several maps (windows).
        maps = {one: (x[: len(x) * few // images], y[: len(y) * few // images]) for one, (x, y) in maps.items()}
        given = {one.path: one.replacement.as_maps(maps[one][0]) for one in self._narrow}
        for path, of_path in self._kept.items():
            of_path.add(given[path])
        for one in self._pooled:
            if one.keeps:
                self._waiting.setdefault(one, []).append((few, *maps[one]))
            else:
                self._try(one, few, *maps[one])

    def make(self) -> None:
        """Let the stand-ins have what is best."""
        for path, of_path in self._kept.items():
            keep_best([one.stand_in for one in self._narrow if one.path == path], of_path)
        for one, batches in self._waiting.items():
            for batch in batches:
                self._try(one, *batch)
        while self._tried:
            one, tried = self._tried.popitem()
            one.supports = tried.best()
            set_supports(one.stand_in, one.supports, self._grids[one])
        self._waiting.clear()
        self._kept.clear()
        self._left = 0

    def _try(self, one: FittedBlock, images: int, x: Tensor, y: Tensor) -> None:
        grid = self._grids[one] = one.grid(x)
        if one not in self._tried:
            if not (starts := starting_supports(one.stand_in, grid)):
                return
            self._tried[one] = _Tried(starts)
        for part, count in one.slices(x, images):
            self._tried[one].add(one, x[part], y[part], count)


class _Tried:
    """Sums for supports to choose from: of what all of them share, and of what is pooled with each.

    Args:
        starts: the supports.
    """

    def __init__(self, starts: Sequence[tuple[float, ...]]) -> None:
        self.starts = starts
        self.sums = BlockSums(dtype=torch.float32)
        self._shared = self._pooled = self._channels = 0

    def add(self, one: FittedBlock, x: Tensor, y: Tensor, images: int) -> None:
        """Add a batch of a stand-in's."""
        target = one.targets(x, y)[0]
        channels = self._channels = target.shape[2]
        pooled = slice(channels, channels * (1 + len(self.starts[0])), -(-channels // _POOLED_CHANNELS))
        found: list[Tensor] = []
        grid = one.grid(x)
        for supports in self.starts:
            set_supports(one.stand_in, supports, grid)
            features = one.features(x)[0]
            found.append(features[..., pooled])
        shared = [features[..., :channels], features[..., pooled.stop :]]
        self._shared, self._pooled = sum(part.shape[2] for part in shared), found[0].shape[2]
        self.sums.add([(torch.cat([*shared, *found], 2), target)], images)

    def best(self) -> tuple[float, ...]:
        """The supports with which a full map leaves least of the held-out images."""
        shared, pooled = torch.arange(self._shared), torch.arange(self._pooled)
        errors = []
        for number in range(len(self.starts)):
            of_start = torch.cat([shared, self._shared + number * self._pooled + pooled])
            ((_, error),) = self.sums.of_features(of_start).solve([self._channels], _FEW_RIDGES)
            errors.append(error)
        return self.starts[errors.index(min(errors))]


def _half_and_block(teacher: nn.Module, path: str) -> tuple[nn.Module, nn.Module]:
    """A module, and what it is a half of where it is one."""
    return teacher.get_submodule(path), teacher.get_submodule(path.rpartition(".")[0])
