"""Any candidate of a search as a model folder."""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from cp_vision.shared.errors import UserError

from ...recipes.models import load_model
from ..context import SearchContext
from ..evaluators.checkpoints import are_kept, weights_folder
from ..evaluators.train import TrainEvaluator
from ..study.workers import folder_lock
from ..types import Candidate
from .model_folder import write_member
from .writer import ResultsWriter

__all__ = ["export_candidate"]


def export_candidate(writer: ResultsWriter, candidate: Candidate, folder: Path) -> None:
    """Write a candidate as a model folder; where its weights were not kept it is trained again, by the same recipe.

    Args:
        writer: of the search, which may still run.
        candidate: the candidate.
        folder: the folder to write.

    Raises:
        UserError: the weights were not kept, and the data is not there or another one.
        CommandError: it can't be trained again.
    """
    architecture, img_size = writer.parts(candidate)
    recipe = writer.contents.make_recipe()
    seed = writer.best_seed(candidate)
    sized = recipe.with_values(seed=seed, **({} if img_size is None else {"img_size": img_size}))
    own = bool(candidate.by_seed) or writer.config.evaluator == "train"
    if candidate.state == "complete" and own:
        # The search's own processes delete weights that they don't need; where nothing can be written none runs.
        with ExitStack() as stack:
            with suppress(OSError):
                stack.enter_context(folder_lock(writer.output))
            kept = _folder(writer, candidate)
            if are_kept(kept):
                write_member(writer.results(), candidate, architecture, sized, kept, folder)
                return
    context = _context(writer, candidate)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = TrainEvaluator.of(context, Path(scratch))
        weights = trainer.kept(architecture, img_size, seed)
        if candidate.state != "complete" or not own:
            # What is known is how well it did in the middle of its training, or with weights of another kind.
            accuracy = trainer.score(load_model(weights), context.held_out, img_size)
            candidate = dataclasses.replace(candidate, state="complete", by_seed={seed: accuracy})
        write_member(writer.results(), candidate, architecture, sized, weights, folder)


def _folder(writer: ResultsWriter, candidate: Candidate) -> Path:
    """The folder of the weights that are handed on."""
    seed = writer.best_seed(candidate)
    return weights_folder(
        writer.output.absolute(), *writer.parts(candidate), None if seed == writer.config.seed else seed
    )


def _context(writer: ResultsWriter, candidate: Candidate) -> SearchContext:
    """What trains a candidate again, by the recipe and with the space that the study holds."""
    contents = writer.contents
    try:
        context = SearchContext(writer.config, contents.make_recipe(), contents.space)
        for name, there, here in contents.differences(context.contents()):
            raise UserError(f"{name} is {here}, and was {there} in the search")
    except UserError as error:
        there = [c for c in writer.candidates() if are_kept(_folder(writer, c))]
        kept = f", or export one whose weights are kept: {', '.join(str(c.number) for c in there)}" if there else ""
        raise UserError(
            f"the weights of candidate {candidate.number} are not here, and it can't be trained again: {error}; bring "
            f"the data back{kept}"
        ) from error
    return context
