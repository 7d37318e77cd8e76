"""One change of the base, and a candidate made of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..types import Measure

__all__ = ["Candidate", "Option", "describe", "saved_by"]


@dataclass(frozen=True)
class Option:
    """One change: a run of blocks, or half of one, replaced or left out.

    Attributes:
        place: as :func:`cp_vision.replace_blocks` names it.
        kind: what takes the place, ``"drop"`` for nothing.
        plain: whether counterparts without pools may have it.
        half: name of the half (``"attn"``); empty for whole blocks.
        first: number of the first block, of the base's.
        stop: number of the block after the last.
        blocks: paths of the blocks, or of the half.
        options: of the stand-in.
        saved: what it saves: MACs of one image, parameters, nanoseconds of one image where they were measured.
        unexplained: share that its stand-in leaves, see :class:`cp_vision.fitting.fit.BlockFit`; None without one.
        score: divergence from the base with this change alone.
    """

    place: str
    kind: str
    plain: bool
    half: str
    first: int
    stop: int
    blocks: tuple[str, ...]
    options: Mapping[str, Any] = field(hash=False)
    saved: Mapping[Measure, int] = field(hash=False)
    unexplained: float | None = None
    score: float = 0.0

    @property
    def key(self) -> str:
        """What tells it from all others of a library."""
        return f"{self.place}|{self.kind}"


# From input to output; no two share a block, but for the halves of one.
Candidate = tuple[Option, ...]


def saved_by(candidate: Sequence[Option], measure: Measure) -> int:
    """What a candidate saves, as the sum over its changes."""
    return sum(option.saved[measure] for option in candidate)


def describe(candidate: Sequence[Option]) -> str:
    """The changes in one line."""
    return ", ".join(f"{option.place} {option.kind}" for option in candidate) or "the base"
