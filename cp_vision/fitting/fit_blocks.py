"""Fitting the stand-ins of a student to the blocks of its teacher, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import nn

from ..anatomy.block import DroppedBlock
from ..anatomy.known_families import check_module, list_blocks
from ..anatomy.replacement import Replacement
from ..shared.errors import UserError
from .batches import Batches
from .capture import Capture
from .fit import Fit
from .fit_round import FitRound
from .fitted_block import FittedBlock
from .frontier import Frontier, is_chain
from .recalibrate import norm_statistics, recalibrate_norms, tracked_norms

__all__ = ["Progress", "fit_blocks"]

_CURVE = (32, 64, 128, 256, 512, 1024, 2048, 4096)


class Progress(Protocol):
    """What is told how far a fit is."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """Take batches done, batches in all (0 where that is not known) and the name of what is being fitted."""


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
        recalibrate: whether running statistics of the BatchNorms behind the first stand-in are moved at the end, by as
            much as what they see was moved on these images.
        curve: also say what smaller numbers of images would have given.
        progress: called after each batch, see :class:`Progress`.

    Returns:
        How well each was fitted.

    Raises:
        UserError: nothing to fit, a teacher without the replaced blocks, too few images or none that can be read again.

    Source: our own. Fitting each block to the teacher's own features: LANA, Molchanov et al., ECCV 2022; Puzzle,
    Bercovich et al. 2024, arXiv 2411.19146.
    """
    for model in (student, teacher):
        check_module(model)
    for name, value in (("recalibrate", recalibrate), ("curve", curve)):
        if not isinstance(value, bool):
            raise UserError(f"{name} {value!r} must be True or False")
    if progress is not None and not callable(progress):
        raise UserError(f"progress {progress!r} must be a function")
    found = [FittedBlock(path, part) for path, part in student.named_modules() if isinstance(part, Replacement)]
    _check(student, teacher, found, inputs, steps)
    batches = Batches(images, student)
    modes = [(model, [(part, part.training) for part in model.modules()]) for model in (student, teacher)]
    try:
        student.eval()
        teacher.eval()
        with torch.no_grad():
            rounds = _rounds(student, found, batches, inputs)
            source = teacher if inputs == "teacher" else student
            begin = _frontiers(student, teacher, batches) if len(rounds) > 1 else ()
            told = _Told(progress, len(rounds) * len(batches))
            for together in rounds:
                told.what = ", ".join(one.replacement.name for one in together)
                run = FitRound(together, source, teacher, batches, begin)
                count = run.fit(steps, _CURVE if curve else (), told.batch_done)
            norms = 0
            if recalibrate and tracked_norms(student):
                norms = recalibrate_norms(student, batches, norm_statistics(teacher, batches))
    finally:
        for _, parts in modes:
            for part, training in parts:
                part.training = training
    done = [one.result for together in rounds for one in together if one.result is not None]
    return Fit(tuple(done), count, norms)


class _Told:
    """Tells how far a fit is."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.done, self.total, self.what = progress, 0, total, ""

    def batch_done(self) -> None:
        """Another batch is done."""
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, self.what)


def _rounds(student: nn.Module, found: list[FittedBlock], batches: Batches, inputs: str) -> list[list[FittedBlock]]:
    """What is fitted in one pass: all, or one after the other, in the order in which the student calls them."""
    first = next(iter(batches), None)
    if first is None:
        raise UserError("images: there are none")
    with Capture(student, [one.path for one in found]) as seen:
        seen.run(first[:1])
    ordered = sorted(found, key=lambda one: seen.order.index(one.path))
    return [ordered] if inputs == "teacher" else [[one] for one in ordered]


def _frontiers(student: nn.Module, teacher: nn.Module, batches: Batches) -> Sequence[Frontier]:
    """Where passes of both begin, if blocks of the teacher are a chain."""
    try:
        blocks = [block.name for block in list_blocks(teacher)]
    except UserError:
        return ()
    return [Frontier(model, blocks) for model in (student, teacher)] if is_chain(teacher, blocks, batches) else ()


def _check(student: nn.Module, teacher: nn.Module, found: Sequence[FittedBlock], inputs: str, steps: int) -> None:
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
