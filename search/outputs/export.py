"""Any candidate of a search as a model folder."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import tempfile
from pathlib import Path

from ..evaluators.train import weights_folder
from ..study.workers import folder_lock
from ..types import Candidate
from .model_folder import write_member
from .writer import ResultsWriter

__all__ = ["export_candidate"]


def export_candidate(writer: ResultsWriter, candidate: Candidate, folder: Path) -> None:
    """Write a candidate as a model folder; it is trained again where its weights were not kept.

    Args:
        writer: of the search, which may still run.
        candidate: the candidate.
        folder: the folder to write.

    Raises:
        CommandError: it can't be trained again.
    """
    architecture, img_size = writer.parts(candidate)
    trainer = copy.copy(writer.context.trainer)
    kept = weights_folder(trainer.output, architecture, img_size)
    # The search's own processes delete weights that they don't need.
    with tempfile.TemporaryDirectory() as scratch:
        trainer.output = Path(scratch)
        weights = weights_folder(trainer.output, architecture, img_size)
        with folder_lock(writer.context.output):
            if kept.is_dir():
                shutil.copytree(kept, weights)
        model = trainer.kept_model(architecture, img_size)
        whole = candidate.state == "complete" and (
            candidate.trained is not None or writer.context.config.evaluator == "train"
        )
        if not whole:
            # What is known is how well it did in the middle of its training, or with weights of another kind.
            accuracy = trainer.score(model, writer.context.held_out, img_size)
            candidate = dataclasses.replace(candidate, trained=accuracy)
        write_member(writer.results(), candidate, architecture, trainer.sized(img_size), weights, folder)
