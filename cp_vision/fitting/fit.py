"""What a fit says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from .block_sums import HELD_OUT_EVERY

__all__ = ["BlockFit", "Fit"]


@dataclass(frozen=True)
class BlockFit:
    """How well one stand-in was fitted.

    Attributes:
        name: of what it replaces.
        unexplained: on held-out images, the share that it leaves of the squared change of whole blocks, or of the
            variance of a half's output.
        prefix_unexplained: the same of class and register tokens; None where there are none.
        ridge: as a share of the features' mean variance.
        supports: in pixels, that the pools started from; empty where there are none.
        curve: what was left unexplained after so many images, where it was asked for.
    """

    name: str
    unexplained: float
    prefix_unexplained: float | None
    ridge: float
    supports: tuple[float, ...]
    curve: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """What :func:`fit_blocks` did; printed, a table.

    Attributes:
        blocks: from input to output.
        images: how many were used, those held out included.
        norms: how many BatchNorms were recalibrated.
    """

    blocks: tuple[BlockFit, ...]
    images: int
    norms: int

    def __str__(self) -> str:
        """One line for each stand-in."""
        counts = list(dict.fromkeys(count for block in self.blocks for count in block.curve))
        rows = [["replaced", "unexplained", "class tokens", "ridge", "supports", *(f"{n} images" for n in counts)]]
        for block in self.blocks:
            prefix = "" if block.prefix_unexplained is None else f"{block.prefix_unexplained:.3f}"
            supports = ", ".join(f"{sigma:g}" for sigma in block.supports) or "none"
            curve = [f"{block.curve[count]:.3f}" if count in block.curve else "" for count in counts]
            rows.append([block.name, f"{block.unexplained:.3f}", prefix, f"{block.ridge:g}", supports, *curve])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        norms = f", {self.norms} BatchNorms recalibrated" if self.norms else ""
        return "\n".join([*lines, f"{self.images} images, every {HELD_OUT_EVERY}th held out{norms}"])
