"""Fitting the stand-ins of a student to the blocks of its teacher, in closed form.

Shapes: B images of a batch, n tokens of an image, F features, C channels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..anatomy.block import DroppedBlock
from ..anatomy.replacement import Replacement
from ..shared.errors import UserError
from .batches import Batches
from .block_sums import HELD_OUT_EVERY, BlockSums
from .capture import Capture
from .local_steps import train_locally
from .recalibrate import recalibrate_norms
from .supports import set_supports, starting_supports

__all__ = ["BlockFit", "Fit", "fit_blocks"]

# Supports are chosen on so many images, with the better of these ridges.
_FEW = 64
_FEW_RIDGES = (1e-4, 1e-2)
# Local steps are taken on as many images as have so many bytes of maps.
_CACHE_BYTES = 2**28
_CURVE = (32, 64, 128, 256, 512, 1024, 2048, 4096)


class Progress(Protocol):
    """What is told how far a fit is."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """Take batches done, batches in all (0 where that is not known) and the name of what is being fitted."""


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


def fit_blocks(
    student: nn.Module,
    teacher: nn.Module,
    images: Any,
    *,
    inputs: Literal["student", "teacher"] = "student",
    steps: int = 0,
    recalibrate: bool = True,
    curve: bool = False,
    progress: Progress | None = None,
) -> Fit:
    """Fit all stand-ins of a student to what stands in their places in its teacher. No labels are needed.

    From input to output, each becomes the ridge regression, of its rank, from what the student gives it to what the
    teacher has there. Sums are kept, so that memory doesn't grow with the number of images; the ridge and the pools'
    first supports are chosen on held-out images. The same images give the same fit.

    Args:
        student: a model that :func:`cp_vision.replace_blocks` changed; fitted in place.
        teacher: the model as it was before, with its weights; left untouched.
        images: unlabelled and normalised, as for the teacher: (N, channels, height, width), or batches of such, or of
            tuples that begin with such, in something that can be read several times.
        inputs: what a stand-in is fitted on: ``"student"``, what comes from the stand-ins before it, or ``"teacher"``,
            as if it were the only one, all in one pass.
        steps: of local training for each stand-in with pools, which trains what these predict as well; some hundred.
        recalibrate: whether running statistics of the BatchNorms behind the first stand-in are taken anew at the end.
        curve: also say what smaller numbers of images would have given.
        progress: called after each batch, see :class:`Progress`.

    Returns:
        How well each was fitted.

    Raises:
        UserError: nothing to fit, a teacher without the replaced blocks, too few images or none that can be read again.

    Source: our own. Fitting each block to the teacher's own features: LANA, Molchanov et al., ECCV 2022; Puzzle,
    Bercovich et al. 2024, arXiv 2411.19146.
    """
    found = [_Fitted(path, part) for path, part in student.named_modules() if isinstance(part, Replacement)]
    _check(student, teacher, found, inputs, steps)
    batches = Batches(images, student)
    modes = [(model, [(part, part.training) for part in model.modules()]) for model in (student, teacher)]
    try:
        student.eval()
        teacher.eval()
        with torch.no_grad():
            rounds = _rounds(student, found, batches, inputs)
            source = teacher if inputs == "teacher" else student
            for number, together in enumerate(rounds):
                run = _Round(together, source, teacher, batches)
                run.choose_supports()
                if steps:
                    run.train(steps)
                run.fit(_CURVE if curve else (), _Told(progress, number, len(rounds), len(batches)))
            norms = recalibrate_norms(student, batches) if recalibrate else 0
    finally:
        for _, parts in modes:
            for part, training in parts:
                part.training = training
    done = [one for together in rounds for one in together]
    return Fit(tuple(one.result for one in done if one.result is not None), done[0].images, norms)


class _Fitted:
    """A stand-in while it is fitted."""

    def __init__(self, path: str, replacement: Replacement) -> None:
        self.path, self.replacement, self.stand_in = path, replacement, replacement.stand_in
        self.end = replacement.name.rpartition(":")[2]
        self.supports: tuple[float, ...] = ()
        self.images = 0
        self.result: BlockFit | None = None

    def parts(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features (B, n, F) and targets (B, n, C) of each part: the grid, then each prefix token."""
        features = self.stand_in.features(*self.replacement.as_maps(x))
        of_grid, *prefix = self.replacement.as_maps(y - x if self.stand_in.residual else y)
        targets = [of_grid.flatten(2).mT, *(token for tokens in prefix for token in tokens.split(1, 1))]
        return list(zip(features, targets, strict=True))

    def grid(self, x: Tensor) -> tuple[int, int]:
        """Height and width of a map."""
        height, width = self.replacement.as_maps(x)[0].shape[2:]
        return height, width

    def ranks(self) -> list[int]:
        """Of the map of each part."""
        return [read_out.rank for read_out in self.stand_in.read_outs()]

    def fit_to(self, x: Tensor, y: Tensor) -> float:
        """Set the maps from maps that are all there, and tell what they leave of the held-out images."""
        sums = BlockSums()
        sums.add(self.parts(x, y), len(x))
        return self.set(sums).unexplained

    def set(self, sums: BlockSums) -> BlockFit:
        """Set the maps from all images, with the ridges that were best on those held out; tell how good they are."""
        found = sums.solve(self.ranks())
        ridges, errors = [solution.ridge for solution, _ in found], [error for _, error in found]
        for read_out, solution in zip(self.stand_in.read_outs(), sums.refit(self.ranks(), ridges), strict=True):
            read_out.set(solution.up, solution.down, solution.bias)
        totals = sums.totals(centred=not self.stand_in.residual)
        self.images = sums.images
        self.result = BlockFit(
            name=self.replacement.name,
            unexplained=_share(errors[0], totals[0]),
            prefix_unexplained=_share(sum(errors[1:]), sum(totals[1:])) if len(errors) > 1 else None,
            ridge=ridges[0],
            supports=self.supports,
            curve={count: _share(error, totals[0]) for count, error in sums.curve(self.ranks()[0]).items()},
        )
        return self.result


class _Told:
    """Tells how far a fit is, in batches of all of its rounds."""

    def __init__(self, progress: Progress | None, number: int, rounds: int, batches: int) -> None:
        self.progress, self.done, self.total = progress, number * batches, rounds * batches

    def batch(self, what: str) -> None:
        """Another batch is done."""
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, what)


class _Round:
    """Fits what is fitted in one pass over the images.

    Args:
        fitted: what is fitted.
        source: the model whose maps they get.
        teacher: the model whose maps they should give.
        batches: the images.
    """

    def __init__(self, fitted: Sequence[_Fitted], source: nn.Module, teacher: nn.Module, batches: Batches) -> None:
        self.fitted, self.source, self.teacher, self.batches = fitted, source, teacher, batches

    def choose_supports(self) -> None:
        """Let the pools of each stand-in start from the supports that leave least of a few images."""
        tried: dict[str, list[tuple[tuple[float, ...], BlockSums]]] = {}
        grids = {}
        for images, maps in self._passes(self._few(_FEW)):
            for one, (x, y) in zip(self.fitted, maps, strict=True):
                grid = grids[one.path] = one.grid(x)
                if one.path not in tried:
                    tried[one.path] = [
                        (supports, BlockSums(dtype=torch.float32)) for supports in starting_supports(one.stand_in, grid)
                    ]
                for supports, sums in tried[one.path]:
                    set_supports(one.stand_in, supports, grid)
                    sums.add(one.parts(x, y)[:1], images)
        for one in self.fitted:
            if starts := tried[one.path]:
                errors = [sums.solve(one.ranks()[:1], _FEW_RIDGES)[0][1] for _, sums in starts]
                one.supports = starts[errors.index(min(errors))][0]
                set_supports(one.stand_in, one.supports, grids[one.path])

    def train(self, steps: int) -> None:
        """Take local steps on the images that can be kept, and keep what comes of them where it is better on others."""
        kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.fitted]
        left = _CACHE_BYTES
        for _, maps in self._passes(iter(self.batches)):
            for pairs, (x, y) in zip(kept, maps, strict=True):
                pairs.append((x, y))
                left -= x.nbytes + y.nbytes
            if left < 0:
                break
        for one, pairs in zip(self.fitted, kept, strict=True):
            if not getattr(one.stand_in, "pools", ()):
                # The closed form of a plain map can't be improved on.
                continue
            x, y = (torch.cat(maps) for maps in zip(*pairs, strict=True))
            held_out = torch.arange(len(x)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
            before = one.fit_to(x, y), copy.deepcopy(one.stand_in.state_dict())
            with torch.enable_grad():
                train_locally(one.replacement, x[~held_out], y[~held_out], steps)
            if one.fit_to(x, y) > before[0]:
                one.stand_in.load_state_dict(before[1])

    def fit(self, curve: Sequence[int], told: _Told) -> None:
        """Fit the maps on all images."""
        sums = [BlockSums(curve) for _ in self.fitted]
        what = self.fitted[0].replacement.name if len(self.fitted) == 1 else f"{len(self.fitted)} stand-ins"
        for images, maps in self._passes(iter(self.batches)):
            for one, of_block, (x, y) in zip(self.fitted, sums, maps, strict=True):
                of_block.add(one.parts(x, y), images)
            told.batch(what)
        for one, of_block in zip(self.fitted, sums, strict=True):
            one.set(of_block)

    def _passes(self, batches: Iterator[Tensor]) -> Iterator[tuple[int, list[tuple[Tensor, Tensor]]]]:
        """For each batch its number of images, and what each stand-in gets and should give."""
        paths, ends = [one.path for one in self.fitted], [one.end for one in self.fitted]
        with ExitStack() as stack:
            if self.source is self.teacher:
                given = wanted = stack.enter_context(Capture(self.teacher, paths, ends))
            else:
                given = stack.enter_context(Capture(self.source, paths))
                wanted = stack.enter_context(Capture(self.teacher, (), ends))
            for batch in batches:
                given.run(batch)
                if wanted is not given:
                    wanted.run(batch)
                yield (
                    len(batch),
                    [(given.inputs[path], wanted.outputs[end]) for path, end in zip(paths, ends, strict=True)],
                )

    def _few(self, count: int) -> Iterator[Tensor]:
        """The first images."""
        for batch in self.batches:
            yield batch[:count]
            count -= len(batch)
            if count <= 0:
                return


def _rounds(student: nn.Module, found: list[_Fitted], batches: Batches, inputs: str) -> list[list[_Fitted]]:
    """What is fitted in one pass: all, or one after the other, in the order in which the student calls them."""
    first = next(iter(batches), None)
    if first is None:
        raise UserError("images: there are none")
    with Capture(student, [one.path for one in found]) as seen:
        seen.run(first[:1])
    ordered = sorted(found, key=lambda one: seen.order.index(one.path))
    return [ordered] if inputs == "teacher" else [[one] for one in ordered]


def _check(student: nn.Module, teacher: nn.Module, found: Sequence[_Fitted], inputs: str, steps: int) -> None:
    if not found:
        raise UserError("the student has no stand-ins to fit; put some in with cp_vision.replace_blocks")
    if inputs not in ("student", "teacher"):
        raise UserError(f"inputs {inputs!r} must be 'student' or 'teacher'")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise UserError(f"steps {steps!r} must be a whole number, 0 or more")
    there = dict(teacher.named_modules())
    for one in found:
        for path in (one.path, one.end):
            if path not in there or isinstance(there[path], Replacement | DroppedBlock):
                raise UserError(
                    f"the teacher has no block {path!r} for the stand-in of {one.replacement.name!r}; give the model "
                    "before its blocks were replaced"
                )


def _share(error: float, total: float) -> float:
    return error / total if total > 0 else 0.0
