"""The loader of a split that is scored: in order, without augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.data import create_loader, create_transform
from timm.data.loader import fast_collate
from torch.utils.data import Dataset, Subset

from ..processes import Processes
from ..recipe.keys import Recipe
from . import MAX_UNREADABLE
from .images import Images
from .training_loader import Batch, data_loader, prefetched, worker_count
from .unreadable import Unreadable

__all__ = ["ScoringLoader"]


class ScoringLoader:
    """Gives a split in order and without augmentation; of several processes each one gets its part.

    Iterated over, it gives images (B, C, H, W) in float32, normalised, and their classes (B,), both on the device. A
    batch is smaller where images can't be read, or empty.

    Args:
        dataset: a data set of :func:`open_split` or :func:`hold_out`.
        recipe: batch size, workers.
        data_config: of ``timm.data.resolve_data_config``.
        processes: this process.
        max_unreadable: how many images may be unreadable; they are left out.

    Attributes:
        unreadable: the images that can't be read; None for data that is streamed.

    Raises:
        CommandError: while it is iterated over: more images are unreadable than may be.
    """

    def __init__(
        self,
        dataset: Any,
        recipe: Recipe,
        data_config: dict[str, Any],
        processes: Processes,
        max_unreadable: int = MAX_UNREADABLE,
    ) -> None:
        size = recipe.validation_batch_size or recipe.batch_size
        self.unreadable: Unreadable | None = None
        if not isinstance(dataset, Images):
            self.loader: Any = create_loader(
                dataset,
                data_config["input_size"],
                size,
                interpolation=data_config["interpolation"],
                mean=data_config["mean"],
                std=data_config["std"],
                num_workers=worker_count(recipe),
                crop_pct=data_config["crop_pct"],
                crop_mode=data_config["crop_mode"],
                device=processes.device,
                persistent_workers=False,
            )
            return
        dataset.transform = create_transform(
            data_config["input_size"],
            use_prefetcher=True,
            interpolation=data_config["interpolation"],
            crop_pct=data_config["crop_pct"],
            crop_mode=data_config["crop_mode"],
        )
        self.unreadable = Unreadable(dataset, max_unreadable)
        part = Subset(_Readable(self.unreadable), range(processes.rank, len(dataset), processes.count))
        loader = data_loader(part, recipe, processes, batch_size=size, collate_fn=_collate_readable)
        self.loader = prefetched(loader, None, data_config, processes.device)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if self.unreadable is not None:
                self.unreadable.check()
            yield batch


class _Readable(Dataset):
    """Images, and None for those that can't be read."""

    def __init__(self, images: Unreadable) -> None:
        self.images = images

    def __getitem__(self, index: int) -> tuple[Any, int] | None:
        return self.images.read(index)


def _collate_readable(samples: Sequence[tuple[Any, int] | None]) -> Any:
    readable = [sample for sample in samples if sample is not None]
    return fast_collate(readable) if readable else (torch.zeros(0, 3, 1, 1), torch.zeros(0, dtype=torch.long))
