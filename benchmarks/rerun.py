"""Make the short benchmarks again and say which figures moved from those in ``results/``.

    make benchmark
    python benchmarks/rerun.py building compress      # these alone

Each writes to a folder of its own in ``--output``; nothing in ``results/`` changes. A figure moved if it differs by
more than the benchmark's tolerance and by more than twice the error, or width of the quartiles, that stands beside it.
Half an hour on an idle machine; times move by more than that on another one, or on a busy one.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import csv
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cp_vision.shared.command_line import run_command
from cp_vision.shared.errors import UserError

__all__ = ["SHORT", "Short", "moved"]

RESULTS = Path(__file__).parent / "results"


class Short(NamedTuple):
    """A benchmark of minutes.

    Attributes:
        command: its script and arguments; ``{data}`` is where images and trained weights are kept.
        files: that it writes, which are compared.
        tolerance: what may differ, as a share: of times more than of what is computed.
    """

    command: tuple[str, ...]
    files: tuple[str, ...]
    tolerance: float


_TIMES, _VALUES = 0.2, 0.02
_VIT = ("--data-dir", "{data}", "--base", "fashion_vit")
SHORT = {
    "building": Short(("building.py",), ("building.md",), _TIMES),
    "training": Short(("training.py",), ("training.md",), _TIMES),
    "end_to_end": Short(("end_to_end.py",), ("end_to_end.md",), _TIMES),
    "search_overhead": Short(("search_overhead.py",), ("search_overhead.md",), _TIMES),
    "pool_decay": Short(("pool_decay.py", "--seeds", "3"), ("pool_decay.md",), _VALUES),
    "compress": Short(("compress.py", *_VIT), ("compress_fashion_vit.csv",), _VALUES),
    "known_scores": Short(("known_scores.py", *_VIT), ("known_scores_fashion_vit.md",), _VALUES),
}
_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_FIGURE = re.compile(rf"({_NUMBER})(?: ± ({_NUMBER})| \[({_NUMBER}), ({_NUMBER})\])?")
_ABOUT_THE_RUN = ("date", "seconds", "torch", "threads")


class Move(NamedTuple):
    """A figure that moved.

    Attributes:
        where: its row and column.
        was: in ``results/``.
        now: made again.
    """

    where: str
    was: str
    now: str


def moved(was: str, now: str, tolerance: float) -> Iterator[Move]:
    """The figures of a CSV file, or of the tables of a page in Markdown, that differ by more than chance.

    Args:
        was: the text of one.
        now: that of the other.
        tolerance: what may differ, as a share of the larger.
    """
    rows, others = _rows(was), _rows(now)
    for key in [*rows, *(key for key in others if key not in rows)]:
        old, new = rows.get(key), others.get(key)
        if old is None or new is None:
            yield Move(key, "no row" if old is None else "a row", "no row" if new is None else "a row")
            continue
        for column in old:
            if _differs(old[column], new.get(column, ""), tolerance):
                yield Move(f"{key}: {column}", old[column], new.get(column, "nothing"))


def _rows(text: str) -> dict[str, dict[str, str]]:
    """Cells by row and column; a row is named by its cells that hold no figure, and by its place among those."""
    rows: dict[str, dict[str, str]] = {}
    for head, cells in _cells(text):
        named = dict(zip(head, cells, strict=False))
        words = [cell for column, cell in named.items() if column not in _ABOUT_THE_RUN and not _is_figure(cell)]
        name = " ".join(word[:60] for word in words if word)
        number = sum(key.startswith(f"{name} #") for key in rows) + 1
        rows[f"{name} #{number}"] = {
            column: cell for column, cell in named.items() if column not in _ABOUT_THE_RUN and _is_figure(cell)
        }
    return rows


def _cells(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """The head of each row's table, and the row."""
    if not text.lstrip().startswith(("#", "Made by", "|")):
        head, *rows = csv.reader(text.splitlines())
        yield from ((head, row) for row in rows)
        return
    head = []
    for line in text.splitlines():
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not head:
            # Columns without a name, or with the same.
            head = [f"{cell or 'column'} {number}" for number, cell in enumerate(cells, 1)]
        elif set(line) - set("|- :"):
            yield head, cells


def _is_figure(cell: str) -> bool:
    """Whether it is one, and no name such as that of a budget, 0.5x."""
    return _FIGURE.match(cell) is not None and not re.fullmatch(r"[\d.]+x", cell)


def _differs(was: str, now: str, tolerance: float) -> bool:
    """Whether a figure of a cell differs by more than is allowed."""
    pairs = list(zip(_FIGURE.findall(was), _FIGURE.findall(now), strict=False))
    if not pairs or len(_FIGURE.findall(was)) != len(_FIGURE.findall(now)):
        return True
    for old, new in pairs:
        errors = [float(error) if error else float(high or 0) - float(low or 0) for _, error, low, high in (old, new)]
        one, other = float(old[0]), float(new[0])
        if abs(one - other) > max(tolerance * max(abs(one), abs(other)), 2 * max(errors)):
            return True
    return False


def main(argv: Sequence[str] | None = None) -> None:
    """Make them, one after another, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHORT)}; default all")
    parser.add_argument("--data-dir", type=Path, default=Path("build/benchmarks/data"), help="for images and weights")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in SHORT]:
        raise UserError(f"benchmark {unknown[0]!r} is not one of {', '.join(SHORT)}")
    for name in arguments.names or SHORT:
        short, folder = SHORT[name], arguments.output / name
        folder.mkdir(parents=True, exist_ok=True)
        words = [word.format(data=arguments.data_dir) for word in short.command]
        begin = time.perf_counter()
        script = Path(__file__).parent / words[0]
        done = subprocess.run([sys.executable, str(script), *words[1:], "--output", str(folder)], check=False)  # noqa: S603
        if done.returncode:
            print(f"{name}: failed with exit status {done.returncode}", flush=True)
            continue
        for file in short.files:
            moves = list(moved((RESULTS / file).read_text(), (folder / file).read_text(), short.tolerance))
            print(f"{name}: {len(moves)} figures of {file} moved, {time.perf_counter() - begin:.0f} s", flush=True)
            for move in moves:
                print(f"  {move.where}: {move.was} -> {move.now}", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main, None, "rerun"))
