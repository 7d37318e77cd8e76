"""Fashion-MNIST for the benchmarks."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

__all__ = ["fill"]

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def fill(data_dir: Path) -> None:
    """Unpack the files of Debian's package dataset-fashion-mnist, where it is installed, so nothing is downloaded."""
    raw = data_dir / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for packed in _DEBIAN.glob("*.gz"):
        if not (raw / packed.stem).exists():
            unfinished = raw / f".{packed.stem}"
            with gzip.open(packed) as source, unfinished.open("wb") as target:
                shutil.copyfileobj(source, target)
            unfinished.rename(raw / packed.stem)
