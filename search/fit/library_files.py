"""A library of fitted stand-ins as files: one of JSON and one of safetensors for each first block.

A file gets its name when it is whole; what a kill leaves half written is removed when its block is claimed again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cp_vision.shared.errors import UserError, one_line
from cp_vision.shared.files import check_path, make_folder, remove_unfinished, whole_file, write_text

from .option import Option

__all__ = ["LibraryFiles", "count_alone", "count_fitted", "fingerprint_of"]

_SEPARATOR = ", "
_HEAD, _LATENCIES, _SCORES, _DISTILLED = "library.json", "latencies.json", "scores.json", "distilled"
_CLAIMS = ".claims"


class LibraryFiles:
    """The folder of a library.

    Args:
        folder: made where it is missing.
        about: what the library is of; JSON values.

    Raises:
        UserError: it holds the library of something else, or can't be written.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        check_path(folder)
        make_folder(folder)
        head = folder / _HEAD
        about = json.loads(json.dumps(about))
        if head.exists():
            found = _read(head)
            other = [key for key in about if found.get(key) != about[key]]
            if other:
                raise UserError(
                    f"folder {str(folder)!r} holds a library of other {', '.join(other)}; choose another folder"
                )
        else:
            write_text(head, json.dumps(about, indent=1) + "\n")

    def read(self, block: int) -> list[Option] | None:
        """Options that begin at a block; None where they aren't fitted yet."""
        path = self._path(block, "json")
        if not path.exists():
            return None
        with _reading(path):
            values = _read(path)["options"]
            return [Option(**{**value, "blocks": tuple(value["blocks"])}) for value in values]

    def write(self, block: int, options: Sequence[Option], stand_ins: Mapping[str, nn.Module]) -> None:
        """Write the options that begin at a block, and the stand-ins of those that have one, by the option's key."""
        with whole_file(self._path(block, "safetensors")) as unfinished:
            save_file(_tensors(stand_ins), unfinished)
        # Last: it says that both are there.
        values = [dataclasses.asdict(option) for option in options]
        write_text(self._path(block, "json"), json.dumps({"options": values}, indent=1) + "\n")

    @contextmanager
    def claims(self) -> Iterator[Callable[[int], bool]]:
        """Within, a function that claims a block for this process: False where another one has it.

        A process that ends gives up its claims: they are POSIX locks, each of a byte of one file.
        """
        with (self.folder / _CLAIMS).open("w") as file:

            def claim(block: int) -> bool:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, block)
                except (BlockingIOError, PermissionError):
                    return False
                remove_unfinished(self.folder, self._path(block, "*").name)
                return True

            yield claim

    def write_one(self, option: Option, stand_in: nn.Module) -> None:
        """Write the stand-in of an option that was fitted by itself."""
        with whole_file(self._path_of_one(option)) as unfinished:
            save_file(_tensors({option.key: stand_in}), unfinished)

    def has(self, option: Option) -> bool:
        """Whether it was fitted by itself."""
        return self._path_of_one(option).exists()

    def latencies(self, measure: Callable[[], tuple[int, dict[str, int]]]) -> tuple[int, dict[str, int]]:
        """Nanoseconds of the base, and what each option saves of them, by its key; measured where there are none yet.

        A library that is copied to another machine takes the times along: remove the file to measure again.
        """
        path = self.folder / _LATENCIES
        if not path.exists():
            base, saved = measure()
            write_text(path, json.dumps({"base": base, "saved": saved}, indent=1) + "\n")
        with _reading(path):
            values = _read(path)
            return values["base"], values["saved"]

    @property
    def distilled(self) -> Path:
        """The folder of distillations."""
        return self.folder / _DISTILLED

    def score(self, candidate: Sequence[Option], measure: Callable[[], float]) -> float:
        """The real score of a candidate; measured where it is not there yet."""
        path = self.folder / _SCORES
        key = _SEPARATOR.join(option.key for option in candidate)
        # Read again each time: another process may have come to more.
        known = _read(path) if path.exists() else {}
        if key not in known:
            known[key] = measure()
            write_text(path, json.dumps(known, indent=1) + "\n")
        with _reading(path):
            return float(known[key])

    def scores(self) -> list[tuple[list[str], float]]:
        """The options' keys of each candidate that was scored, and its score."""
        path = self.folder / _SCORES
        known = _read(path) if path.exists() else {}
        with _reading(path):
            return [(key.split(_SEPARATOR) if key else [], float(score)) for key, score in known.items()]

    def weights(self, option: Option) -> dict[str, Tensor]:
        """The state dict of an option's stand-in.

        Raises:
            UserError: the file is damaged.
        """
        start = f"{option.key}|"
        path = self._path_of_one(option) if self.has(option) else self._path(option.first, "safetensors")
        with _reading(path), safe_open(path, "pt") as file:
            return {name.removeprefix(start): file.get_tensor(name) for name in file.keys() if name.startswith(start)}  # noqa: SIM118

    def _path_of_one(self, option: Option) -> Path:
        return self.folder / f"one-{quote(option.key, safe='')}.safetensors"

    def _path(self, block: int, ending: str) -> Path:
        return self.folder / f"block-{block:03}.{ending}"


def _tensors(stand_ins: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{key}|{name}": tensor.cpu().contiguous()
        for key, stand_in in stand_ins.items()
        for name, tensor in stand_in.state_dict().items()
    }


def count_fitted(folder: Path) -> tuple[int, int]:
    """At how many blocks of a library options are fitted, and of how many."""
    head = folder / _HEAD
    return len(list(folder.glob("block-*.json"))), len(_read(head)["blocks"]) if head.exists() else 0


def count_alone(folder: Path) -> int:
    """How many stand-ins of a library were fitted by themselves."""
    return len(list(folder.glob("one-*.safetensors")))


def _read(path: Path) -> Any:
    with _reading(path):
        return dict(json.loads(path.read_text(encoding="utf-8")))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise a UserError where a file is damaged, or none of a library's."""
    try:
        yield
    except UserError:
        raise
    except (AttributeError, KeyError, OSError, SafetensorError, TypeError, ValueError) as error:
        raise UserError(
            f"{str(path)!r} is no file of a library ({type(error).__name__}: {one_line(error)}); remove {path.stem}.* "
            "there, or choose another folder"
        ) from error


def fingerprint_of(model: nn.Module) -> str:
    """Tells a model's weights from others."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()
