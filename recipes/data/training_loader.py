"""Loaders: a data set with a recipe's batches and augmentation, from timm's transforms, mixup and prefetcher."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import signal
import time
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from timm.data import create_loader, create_transform
from timm.data.loader import PrefetchLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cp_vision.shared.errors import UserError, one_line
from cp_vision.shared.held_back import told_at_once

from ..processes import Processes
from ..recipe.keys import Recipe
from . import MAX_UNREADABLE
from .images import Images, UnreadableImageError
from .sampler import Order, share_batch
from .seeded_batches import SeededBatches, TrainingBatches, as_it_is, mixing
from .seeding import seed_all
from .unreadable import Unreadable

__all__ = ["Batch", "TrainingLoader", "data_loader", "prefetched", "worker_count"]

Batch = tuple[Tensor, Tensor]

# Seconds, at most, in which the system tells that a process has ended.
_MOMENT = 5.0


class TrainingLoader:
    """Gives the micro-batches of a training, shuffled and augmented, on the device and normalised.

    What a batch holds depends on the recipe, the epoch and the update alone: not on the number of workers, and
    on the number of processes no more than that they share it (erased parts, and mixing in other modes than
    ``batch``, are drawn by each process). Data that is streamed comes in the order that timm's readers give it.

    Args:
        dataset: a data set of :func:`open_splits` or :func:`hold_out`.
        recipe: batch size, augmentation, workers.
        data_config: of ``timm.data.resolve_data_config``.
        num_classes: number of classes.
        processes: this process.
        max_unreadable: how many images may be unreadable; others take their place.

    Attributes:
        updates: updates per epoch.
        share: what this process does of each.
        unreadable: the images that can't be read; None for data that is streamed.

    Raises:
        UserError: fewer images than one batch, a batch that can't be shared, an augmentation timm doesn't know.
    """

    def __init__(
        self,
        dataset: Any,
        recipe: Recipe,
        data_config: dict[str, Any],
        num_classes: int,
        processes: Processes,
        max_unreadable: int = MAX_UNREADABLE,
    ) -> None:
        self.recipe, self.rank = recipe, processes.rank
        self.share = share_batch(recipe, processes.count)
        self.unreadable: Unreadable | None = None
        try:
            if isinstance(dataset, Images):
                size, mean = data_config["input_size"], data_config["mean"]
                dataset.transform = create_transform(
                    size, is_training=True, use_prefetcher=True, mean=mean, **_augmentation(recipe, data_config)
                )
                self.unreadable = Unreadable(dataset, max_unreadable)
                self.order = Order(len(dataset), recipe, processes.rank, processes.count)
                batches = TrainingBatches(self.unreadable, recipe, num_classes)
                loader = data_loader(batches, recipe, processes, batch_sampler=self.order, collate_fn=as_it_is)
                self.seeded = SeededBatches(loader, recipe.seed, processes.rank)
                self.loader: Any = prefetched(self.seeded, recipe, data_config, processes.device)
                self.updates = self.order.updates
            else:
                self.loader = _streamed(dataset, recipe, data_config, num_classes, processes, self.share.size)
                self.updates = len(self.loader) // self.share.count
        except UserError:
            raise
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            # timm checks most of an augmentation's values where it makes the transforms.
            raise UserError(f"can't make the loader: {type(error).__name__}: {one_line(error)}") from error

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The micro-batches of this process in an epoch.

        Args:
            epoch: number of the epoch, from 0.
            first: the update to begin with, from 0.

        Yields:
            Images (B, C, H, W) in float32, and their classes (B,), or shares of classes (B, classes) where the recipe
            mixes images. B is the share's ``size``.

        Raises:
            CommandError: more images are unreadable than may be.
        """
        done = first * self.share.count
        if self.unreadable is None:
            yield from self._stream(epoch, done)
            return
        self.order.start(epoch, first)
        self.seeded.epoch, self.seeded.first = epoch, done
        try:
            for batch in self.loader:
                self.unreadable.check()
                yield batch
        except UnreadableImageError as error:
            raise self.unreadable.error() from error

    def _stream(self, epoch: int, done: int) -> Iterator[Batch]:
        self.loader.mixup_enabled = self.recipe.mixes_in(epoch)
        self.loader.dataset.set_epoch(epoch)
        # Workers start from these random numbers; without workers, and for erasing, they are drawn from batch by batch.
        seed_all(self.recipe.seed, 4, epoch, 0, self.rank)
        batches = iter(self.loader)
        for number in itertools.count():
            seed_all(self.recipe.seed, 4, epoch, number + 1, self.rank)
            batch = next(batches, None)
            if batch is None:
                return
            if number >= done:
                yield batch


def worker_count(recipe: Recipe) -> int:
    """Processes that load data: the recipe's, but no more than this process has cores."""
    # Only Linux tells which of the machine's cores are this process's.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(recipe.workers, cores)


class _Loader(DataLoader):
    """A loader whose workers end with Python: an error that is kept, with its traceback, keeps them.

    Python would send them the signal that they ignore, and wait for them for ever.
    """

    _last: Any = None

    def __iter__(self) -> Any:
        iterator: Any = super().__iter__()
        if self.num_workers and iterator is not self._last:
            # After torch's own, which waits for them too, so that this is called first.
            self._last = iterator
            atexit.register(_end_workers, weakref.ref(iterator))
        try:
            yield from iterator
        except (ConnectionError, EOFError):
            # A worker was ended while it sent a batch. Torch's handler of the signal says so, here rather than later.
            time.sleep(_MOMENT)
            raise


def _end_workers(reference: weakref.ref[Any]) -> None:
    iterator = reference()
    # Of a worker that the system has ended torch may tell while the others end, to nobody.
    with contextlib.suppress(RuntimeError):
        if iterator is not None:
            iterator.__del__()


def data_loader(dataset: Dataset, recipe: Recipe, processes: Processes, **options: Any) -> DataLoader:
    """torch's loader with the recipe's workers."""
    workers = worker_count(recipe)
    return _Loader(
        dataset,
        num_workers=workers,
        pin_memory=processes.device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_begin_worker,
        **options,
    )


def _begin_worker(worker: int) -> None:
    """Ctrl-C and a cluster's end go to all processes; workers end with the command, once it has kept its state."""
    told_at_once()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def prefetched(loader: Any, recipe: Recipe | None, data_config: dict[str, Any], device: torch.device) -> Any:
    """The loader with its batches on the device, normalised, and where a recipe says so with parts erased."""
    return PrefetchLoader(
        loader,
        mean=data_config["mean"],
        std=data_config["std"],
        channels=data_config["input_size"][0],
        device=device,
        **({} if recipe is None else _erasing(recipe)),
    )


def _streamed(
    dataset: Any,
    recipe: Recipe,
    data_config: dict[str, Any],
    num_classes: int,
    processes: Processes,
    size: int,
) -> Any:
    return create_loader(
        dataset,
        data_config["input_size"],
        size,
        is_training=True,
        mean=data_config["mean"],
        std=data_config["std"],
        num_workers=worker_count(recipe),
        collate_fn=mixing(recipe, num_classes),
        pin_memory=processes.device.type == "cuda",
        device=processes.device,
        # Workers that are started anew draw from seeds that depend on the epoch alone.
        persistent_workers=False,
        **_augmentation(recipe, data_config),
        **_erasing(recipe),
    )


def _erasing(recipe: Recipe) -> dict[str, Any]:
    return {} if recipe.no_aug else {"re_prob": recipe.reprob, "re_mode": recipe.remode, "re_count": recipe.recount}


def _augmentation(recipe: Recipe, data_config: dict[str, Any]) -> dict[str, Any]:
    return {
        "no_aug": recipe.no_aug,
        "scale": recipe.scale,
        "ratio": recipe.ratio,
        "hflip": recipe.hflip,
        "vflip": recipe.vflip,
        "color_jitter": recipe.color_jitter,
        "auto_augment": recipe.aa,
        "interpolation": data_config["interpolation"] if recipe.no_aug else recipe.train_interpolation,
    }
