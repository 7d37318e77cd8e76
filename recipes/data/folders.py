"""A folder of images per class, as people have them: with hidden files, folders in folders and images beside them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from timm.data import get_img_extensions
from timm.data.readers.class_map import load_class_map
from timm.data.readers.reader import Reader
from timm.utils.misc import natural_key
from torchvision.datasets.folder import IMG_EXTENSIONS

from cp_vision.shared.errors import UserError

__all__ = ["FolderReader", "split_folder"]

# By which names timm finds the folder of a split.
_SYNONYMS = (("train", "training"), ("val", "valid", "validation", "eval", "evaluation"))
# What other programs leave in folders: macOS in archives, a Synology's thumbnails.
_NOT_CLASSES = ("__MACOSX", "@eaDir")


def split_folder(root: Path, split: str) -> Path:
    """The folder, or file, of a split in a data folder; the data folder itself where there is none."""
    name = split.partition("[")[0]
    others = next((names for names in _SYNONYMS if name in names), ())
    return next((root / one for one in (name, *others) if (root / one).exists()), root)


class FolderReader(Reader):
    """Reads the images of a folder, as timm's reader does, with three differences.

    An image's class is the first folder under the root, however deep it lies; timm takes the last. What is hidden
    (``.ipynb_checkpoints``, macOS's ``._`` files) and what lies in no class's folder is left out. What was left out is
    told.

    Args:
        root: holds a folder per class.
        split: which split that is, for errors.
        class_map: class indices by name, or a file of names by timm's rules; others are left out. None numbers the
            folders in the order of their names.

    Attributes:
        samples: paths of the images and their class indices, in order.
        class_to_idx: class indices by name.
        ignored: how many files, or classes, were left out, by what they are.

    Raises:
        UserError: no image in any class's folder.
        AssertionError: no such class map, or none of timm's kinds.
    """

    def __init__(self, root: Path, split: str, class_map: str | Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.root = str(root)
        self.ignored: Counter[str] = Counter()
        # timm's kinds are JPEG and PNG, and what a program has added; torchvision's WebP, BMP, PPM and TIFF as well.
        self.kinds = get_img_extensions(as_set=True) | set(IMG_EXTENSIONS)
        known: dict[str, int] | None = load_class_map(class_map, self.root) if class_map else None
        folders = sorted((f for f in os.scandir(root) if f.is_dir()), key=lambda folder: natural_key(folder.name))
        self._ignore("hidden files and folders", (f.name for f in folders if _is_hidden(f.name)))
        beside = [f.name for f in os.scandir(root) if f.is_file()]
        self._ignore("hidden files and folders", (name for name in beside if _is_hidden(name)))
        self._ignore("images in no class's folder", (n for n in beside if not _is_hidden(n) and self._is_image(n)))
        found = {f.name: self._images(f.path) for f in folders if not _is_hidden(f.name)}
        self._ignore("folders without images", (name for name, images in found.items() if not images))
        if known is not None:
            self._ignore(
                "folders that class_map lacks", (n for n, images in found.items() if images and n not in known)
            )
        names = [name for name, images in found.items() if images and (known is None or name in known)]
        self.class_to_idx = known if known is not None else {name: index for index, name in enumerate(names)}
        samples = [(path, self.class_to_idx[name]) for name in names for path in found[name]]
        self.samples = sorted(samples, key=lambda sample: natural_key(sample[0]))
        if not self.samples:
            raise UserError(
                f"split {split!r}: data folder {self.root!r} has no images in folders of its own, one per class"
                f"{self.told() and f' ({self.told()})'}; images end in {', '.join(sorted(self.kinds))}"
            )

    def _ignore(self, what: str, names: Iterable[str]) -> None:
        number = sum(1 for _ in names)
        if number:
            self.ignored[what] += number

    def _images(self, folder: str) -> list[str]:
        """Images in a class's folder, and in those within it."""
        images = []
        for path, folders, files in os.walk(folder, followlinks=True):
            self._ignore("hidden files and folders", (name for name in [*folders, *files] if _is_hidden(name)))
            folders[:] = [name for name in folders if not _is_hidden(name)]
            images += [os.path.join(path, name) for name in files if not _is_hidden(name) and self._is_image(name)]
        return images

    def _is_image(self, name: str) -> bool:
        return os.path.splitext(name)[1].lower() in self.kinds

    def told(self) -> str:
        """What was left out, on one line; empty where nothing was."""
        return ", ".join(f"{number} {what}" for what, number in self.ignored.items())

    def __getitem__(self, index: int) -> tuple[IO[bytes], int]:
        path, target = self.samples[index]
        return open(path, "rb"), target

    def __len__(self) -> int:
        return len(self.samples)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        path = self.samples[index][0]
        if basename:
            return os.path.basename(path)
        return path if absolute else os.path.relpath(path, self.root)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _NOT_CLASSES
