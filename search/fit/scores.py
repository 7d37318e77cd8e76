"""What every option of a base scored alone, as a small file: enough to choose under any budget, without images.

No weight and no image is in it. Scores have four digits, of candidates that were scored as a whole, too.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch

import cp_vision
from cp_vision import Architecture
from cp_vision.shared.errors import UserError, closest, listed, one_line
from cp_vision.shared.files import write_text

from ..types import Measure
from .option import Candidate, Option

__all__ = ["SCORES", "Scores", "read_scores", "shipped_scores", "with_scores"]

# In the folder of a search.
SCORES = "scores.json"
BUNDLED = Path(__file__).parent.parent / "bundled"
_FORMAT = 1


@dataclass(frozen=True)
class Scores:
    """The table of a base.

    Attributes:
        base: the base, as it was scored; None where it is none of timm's.
        input_size: (channels, height, width) of its images.
        blocks: paths of its blocks.
        base_costs: MACs of one image, and parameters.
        measure: what scores are, ``"KL"`` in nats for models with classes.
        images: how many there were.
        held_out: how many of these scores are of.
        options: all, with their scores alone; none that gave no numbers.
        scored: candidates that were scored as a whole, before the fit front to back, and their scores.
        data: which images these were, in words.
        date: when, as ``2026-12-01``.
        versions: of the packages that made it.
    """

    base: Architecture | None
    input_size: tuple[int, int, int]
    blocks: tuple[str, ...]
    base_costs: Mapping[Measure, int]
    measure: str
    images: int
    held_out: int
    options: tuple[Option, ...] = field(repr=False)
    scored: tuple[tuple[Candidate, float], ...] = field(default=(), repr=False)
    data: str = ""
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date().isoformat())
    versions: Mapping[str, str] = field(default_factory=lambda: _versions(), hash=False)

    @property
    def name(self) -> str:
        """Of the base."""
        return "a model that is none of timm's" if self.base is None else self.base.base

    @property
    def fingerprint(self) -> str:
        """Tells this table from others."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write it as a file, which ``cp-search solve`` and :func:`cp_vision.search.compress` read.

        Raises:
            OSError: it can't be written.
        """
        write_text(Path(path), self.to_json())

    def to_json(self) -> str:
        """JSON of a line for each option and each candidate."""
        options = [option for option in self.options if option.score < float("inf")]
        stand_ins = list({_text(option.options): dict(option.options) for option in options}.values())
        number = {_text(own): i for i, own in enumerate(stand_ins)}
        places = {option.place: [option.half, option.first, option.stop, list(option.blocks)] for option in options}
        head = {
            "format": _FORMAT,
            "base": None if self.base is None else json.loads(self.base.to_json()),
            "input_size": list(self.input_size),
            "base_costs": {measure: self.base_costs[measure] for measure in ("macs", "params")},
            "measure": self.measure,
            "data": self.data,
            "images": self.images,
            "held_out": self.held_out,
            "date": self.date,
            "versions": dict(self.versions),
            "blocks": list(self.blocks),
            "plain": sorted({option.kind for option in options if option.plain}),
        }
        rows = [
            [
                *(option.place, option.kind, number[_text(option.options)]),
                *(option.saved["macs"], option.saved["params"], _rounded(option.unexplained), _rounded(option.score)),
            ]
            for option in options
        ]
        index = {option.key: i for i, option in enumerate(options)}
        scored = [
            [_rounded(score), [index[option.key] for option in candidate]]
            for candidate, score in self.scored
            if score < float("inf")
        ]
        parts = [f'"{key}": {_text(value)}' for key, value in head.items()]
        parts.append('"places": {\n' + ",\n".join(f"{_text(k)}: {_text(v)}" for k, v in places.items()) + "}")
        lists = (("stand_ins", stand_ins), ("options", rows), ("scored", scored))
        parts += [f'"{key}": {_lines(value)}' for key, value in lists]
        return "{\n" + ",\n".join(parts) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, name: str) -> Scores:
        """Read what :meth:`to_json` wrote.

        Args:
            text: the JSON.
            name: of the file, for errors.

        Raises:
            UserError: it is none of these, or of another version.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or "options" not in values:
                raise ValueError("no options")
            if values["format"] != _FORMAT:
                raise UserError(
                    f"{name!r} is of another version of cp-vision (format {values['format']}); this one reads {_FORMAT}"
                )
            return _parsed(values)
        except UserError as error:
            raise UserError(f"{name!r}: {error}") if name not in str(error) else error from error
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{name!r} holds no scores of a search by fits ({type(error).__name__}: {one_line(error)}); name the "
                f"{SCORES} of one, its folder, or one of {listed(shipped_scores(), 20)}"
            ) from error


def shipped_scores() -> list[str]:
    """Names of the tables that come with the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.json"))


def read_scores(scores: str | Path | Scores) -> Scores:
    """A table by the name of one that comes with the package, its file, or the folder of the search that made it.

    Raises:
        UserError: there is none, or it can't be read.
    """
    if isinstance(scores, Scores):
        return scores
    if not isinstance(scores, str | Path):
        raise UserError(f"scores {scores!r} must be a file, the folder of a search, or one of {_shipped()}")
    path = Path(scores)
    if path.is_dir():
        path = path / SCORES
    elif not path.is_file():
        path = BUNDLED / f"{scores}.json"
    if not path.is_file():
        hint = closest(str(scores), shipped_scores()) or f"; with the package come {_shipped()}"
        if Path(scores).is_dir():
            hint = f"; a search by fits leaves it there: cp-search resume {scores}"
        what = f"{str(scores)!r} has no {SCORES}" if Path(scores).is_dir() else f"{str(scores)!r} is no file"
        raise UserError(f"scores {what}{hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"scores {str(path)!r} can't be read: {one_line(error)}") from error
    return Scores.from_json(text, str(path))


def with_scores(scores: Scores, options: Sequence[Option], blocks: Sequence[str]) -> list[Option]:
    """Those of a model's options that a table knows, with its scores; what they save is what they save in this model.

    Args:
        scores: the table.
        options: of the model, without scores.
        blocks: paths of its blocks.

    Raises:
        UserError: the table is of another base.
    """
    if tuple(blocks) != scores.blocks:
        raise UserError(
            f"scores are of {scores.name} with the blocks {listed(scores.blocks, 3)}, the model has {listed(blocks, 3)}"
        )
    known = {option.key: option for option in scores.options}
    found = []
    for option in options:
        if (of := known.get(option.key)) is None:
            continue
        if of.options != option.options:
            raise UserError(
                f"scores are of {scores.name} with {of.place} {of.kind} {dict(of.options)}, in this model that is "
                f"{dict(option.options)}; give those of the same base and version"
            )
        found.append(dataclasses.replace(option, unexplained=of.unexplained, score=of.score))
    if not found:
        raise UserError(f"scores are of {scores.name}, and of no stand-in that these kinds offer in this model")
    return found


def _shipped() -> str:
    return listed(shipped_scores(), 20)


def _parsed(values: Mapping[str, Any]) -> Scores:
    blocks, plain = tuple(values["blocks"]), set(values["plain"])
    options = []
    for place, kind, stand_in, macs, params, unexplained, score in values["options"]:
        half, first, stop, own = values["places"][place]
        if not 0 <= first < stop <= len(blocks) or float(score) != float(score):
            raise ValueError(f"option {place} {kind}")
        saved: dict[Measure, int] = {"macs": int(macs), "params": int(params)}
        options.append(
            Option(
                *(place, kind, kind in plain, half, first, stop, tuple(own)),
                options=dict(values["stand_ins"][stand_in]),
                saved=saved,
                unexplained=unexplained,
                score=float(score),
            )
        )
    base = values["base"]
    channels, height, width = values["input_size"]
    return Scores(
        base=None if base is None else Architecture.from_json(json.dumps(base)),
        input_size=(int(channels), int(height), int(width)),
        blocks=blocks,
        base_costs={"macs": int(values["base_costs"]["macs"]), "params": int(values["base_costs"]["params"])},
        measure=str(values["measure"]),
        images=int(values["images"]),
        held_out=int(values["held_out"]),
        options=tuple(options),
        scored=tuple((tuple(options[i] for i in indices), float(score)) for score, indices in values["scored"]),
        data=str(values["data"]),
        date=str(values["date"]),
        versions=dict(values["versions"]),
    )


def _versions() -> dict[str, str]:
    return {module.__name__: module.__version__ for module in (cp_vision, timm, torch)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _lines(values: Sequence[Any]) -> str:
    return "[\n" + ",\n".join(map(_text, values)) + "]"
