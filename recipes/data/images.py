"""Images of a data set with their classes, whatever reads them."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import ImageDataset
from torch.utils.data import Dataset

from cp_vision.shared.errors import one_line
from cp_vision.shared.image_modes import in_colours

from .folders import FolderReader

__all__ = ["Images", "UnreadableImageError"]

# What Pillow raises for files that are damaged, cut off, no images or suspiciously large.
_UNREADABLE = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)


class UnreadableImageError(OSError):
    """An image can't be read."""


class Images(Dataset):
    """Images of a data set, all or some of them, in the colours that a model takes.

    ``transform`` is set by timm's loaders.

    Args:
        dataset: gives pairs of a PIL image and a class index.
        mode: PIL's name of the colours, ``"RGB"`` or ``"L"``.
        indices: which images; None takes all.
    """

    def __init__(self, dataset: Any, mode: str, indices: Sequence[int] | None = None) -> None:
        self.dataset, self.mode = dataset, mode
        self.indices = range(len(dataset)) if indices is None else indices
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        try:
            image, target = self._read(self.indices[index])
            image = in_colours(image, self.mode)
        except _UNREADABLE as error:
            raise UnreadableImageError(f"can't read image {self.describe(index)}: {one_line(error)}") from error
        return (image if self.transform is None else self.transform(image)), target

    def _read(self, index: int) -> tuple[Any, int]:
        if not isinstance(self.dataset, ImageDataset):
            image, target = self.dataset[index]
            return image, target
        # timm answers an unreadable file with the next image, which may be one of another part.
        file, target = self.dataset.reader[index]
        return Image.open(file), target

    def describe(self, index: int) -> str:
        """An image's file, or its number where it has none."""
        index = self.indices[index]
        if isinstance(self.dataset, ImageDataset):
            return str(self.dataset.filename(index))
        samples = self._samples()
        return str(samples[index][0]) if samples else f"number {index}"

    def part(self, indices: Sequence[int]) -> Images:
        """Some of these images, with a transform of their own."""
        return Images(self.dataset, self.mode, [self.indices[i] for i in indices])

    @property
    def classes(self) -> dict[str, int] | None:
        """Class indices by name, where the data set knows them."""
        reader = getattr(self.dataset, "reader", None)
        # timm's reader of tar files has another name for it.
        names = ((self.dataset, "class_to_idx"), (reader, "class_to_idx"), (reader, "class_name_to_idx"))
        return next((found for where, name in names if (found := getattr(where, name, None))), None)

    def targets(self) -> list[int] | None:
        """Class index of every image, where that is known without reading the images."""
        reader = getattr(self.dataset, "reader", None)
        targets = getattr(self.dataset, "targets", None) if reader is None else getattr(reader, "targets", None)
        if targets is None and self._samples():
            targets = [target for _, target in self._samples()]
        return None if targets is None else [int(targets[i]) for i in self.indices]

    @property
    def left_out(self) -> str:
        """What the data set's folder holds beside these images, on one line; empty where that is nothing."""
        reader = getattr(self.dataset, "reader", None)
        return reader.told() if isinstance(reader, FolderReader) else ""

    def fingerprint(self) -> str:
        """The same for the same files in the same classes, wherever their folder lies; no image is read for it."""
        reader = getattr(self.dataset, "reader", self.dataset)
        root, samples = os.path.join(str(getattr(reader, "root", "")), ""), self._samples()
        targets = self.targets() or [-1] * len(self)
        lines = [repr(sorted((self.classes or {}).items()))]
        for index, target in zip(self.indices, targets, strict=True):
            lines.append(f"{samples[index][0].removeprefix(root) if samples else index}\t{target}")
        return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]

    def files(self) -> set[str]:
        """Paths of the images of a folder, or of the tar file that they lie in."""
        samples = self._samples()
        if samples:
            return _whole_paths(samples[i][0] for i in self.indices)
        root = getattr(getattr(self.dataset, "reader", None), "root", None)
        return {str(Path(root).resolve())} if root is not None and Path(root).is_file() else set()

    def _samples(self) -> list[tuple[str, int]]:
        # timm's folder reader and torchvision's ImageFolder both keep (path, class index); other readers don't.
        samples = getattr(getattr(self.dataset, "reader", self.dataset), "samples", None)
        if samples is None or not len(samples) or not isinstance(samples[0][0], str):
            return []
        return list(samples)


def _whole_paths(files: Iterable[str]) -> set[str]:
    """Paths without links in them. A data set has few folders and many files, each of which is looked at once."""
    whole = cache(os.path.realpath)

    def path(file: str) -> str:
        folder, name = os.path.split(file)
        return os.path.realpath(file) if os.path.islink(file) else os.path.join(whole(folder), name)

    return {path(file) for file in files}
