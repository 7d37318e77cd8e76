"""ELPV's solar cells as an image folder: train/ and test/, each with the classes ``intact`` and ``with_defects``.

    python benchmarks/elpv_folder.py DIR

Images to train on and to test on are those of ``elpv_split``; those to choose by are left out.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.elpv import elpv_files, elpv_labels, elpv_split
from benchmarks.package_files import INSTALL
from cp_vision.shared.command_line import run_command

# By label, and so sorted.
CLASSES = ("intact", "with_defects")


def write_folder(folder: Path) -> None:
    """Write the images; a folder that is there is left as it is.

    Args:
        folder: of the images.

    Raises:
        UserError: the package is missing.
    """
    if folder.exists():
        return
    files, labels = elpv_files(), elpv_labels().tolist()
    train, _, test = elpv_split()
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for split, numbers in (("train", train), ("test", test)):
        for name in CLASSES:
            (unfinished / split / name).mkdir(parents=True)
        for number in numbers.tolist():
            shutil.copyfile(files[number], unfinished / split / CLASSES[labels[number]] / files[number].name)
    unfinished.rename(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=INSTALL, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    write_folder(parser.parse_args(argv).folder)


if __name__ == "__main__":
    sys.exit(run_command(main, None, "elpv_folder"))
