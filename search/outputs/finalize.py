"""The end of a search: the test split, latencies, folders; one process at a time comes here."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path

import torch

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import one_line

from ...recipes.models import load_model
from ..context import SearchContext
from ..evaluators.checkpoints import are_kept, keep_weights
from ..evaluators.train import TrainEvaluator
from ..space.latency import measure_latency
from ..study.workers import folder_lock
from ..types import Candidate, Results
from .model_folder import write_member
from .writer import ResultsWriter

__all__ = ["Finalizer"]

_ROUNDS = 7


class Finalizer:
    """What is done once all candidates were tried; what is done is noted in the record and not done again.

    Weights that are missing, since the folder was deleted or they are on another machine, are trained again.

    Args:
        context: the search.
        writer: of the search.
    """

    def __init__(self, context: SearchContext, writer: ResultsWriter) -> None:
        self.context, self.writer = context, writer
        self.record, self.trainer = writer.record, TrainEvaluator.of(context)

    def run(self) -> None:
        """Everything, in its order."""
        self.record.sync()
        with folder_lock(self.context.output):
            self._score_leaders()
            keep_weights(self.trainer.output, self.writer.with_weights(ended=True))
            self._measure_latencies()
            self._write_folders()

    def _score_leaders(self) -> None:
        """Score the winner and what it is compared with on the test split, once each; all have weights from then on."""
        known = self.writer.results(importance=False).test_accuracy
        for candidate in self.writer.leaders().tested():
            accuracies = dict(candidate.by_seed) or {self.context.config.seed: candidate.accuracy or 0.0}
            tested = {seed: self._tested(candidate, seed, accuracy, known) for seed, accuracy in accuracies.items()}
            if tested != known.get(candidate.number):
                self.record.note("test_accuracy", candidate.number, tested)

    def _tested(
        self, candidate: Candidate, seed: int, accuracy: float, known: Mapping[int, Mapping[int, float]]
    ) -> float:
        """Test accuracy after the training with a seed."""
        context, parts = self.context, self.writer.parts(candidate)
        before = known.get(candidate.number, {}).get(seed)
        if before is not None and are_kept(self.trainer.folder(*parts, seed)):
            return before
        folder = self.trainer.kept(*parts, seed)
        model = load_model(folder)
        again = self.trainer.score(model, context.held_out, parts[1])
        # Another machine or number of threads may turn a close call.
        if abs(again - accuracy) > max(0.5, 100 / len(context.held_out)):
            raise CommandError(
                f"candidate {candidate.number} scored {accuracy} % and scores {again} % when loaded; delete "
                f"{str(folder)!r}, and the same command trains it again"
            )
        if before is not None:
            return before
        try:
            return self.trainer.score(model, context.test_set, parts[1])
        except (OSError, RuntimeError) as error:
            raise CommandError(
                f"can't score the test split: {one_line(error)}; once that is repaired the same command goes on"
            ) from error

    def _measure_latencies(self) -> None:
        """Measure how long an image takes, for the leaders and the front, as far as their weights are kept."""
        members = self._members()
        if {c.number for c in members} <= set(self.record.notes("latency")):
            return
        device, channels = self.trainer.processes.device, self.context.input_size[0]
        models, times = {}, {c.number: list[float]() for c in members}
        for candidate in members:
            img_size = self.writer.parts(candidate)[1]
            model = load_model(self._weights(candidate)).eval()
            size = self.context.input_size if img_size is None else (channels, img_size, img_size)
            models[candidate.number] = model.to(device), torch.randn(1, *size, device=device)
        # In turns, so that all meet the same machine.
        for _ in range(_ROUNDS):
            for number, (model, image) in models.items():
                time = measure_latency(model, image, compiled=self.context.config.compiled, seconds=0.1)
                times[number].append(time)
        for number, measured in times.items():
            self.record.note("latency", number, round(statistics.median(measured), 4))

    def _members(self) -> list[Candidate]:
        """The leaders and the members of the front whose weights there are, each once."""
        found = {c.number: c for c in [*self.writer.leaders().all(), *self.writer.front()]}
        return [c for c in found.values() if are_kept(self._weights(c))]

    def _weights(self, candidate: Candidate) -> Path:
        """The folder of the weights that are handed on."""
        return self.trainer.folder(*self.writer.parts(candidate), self.writer.best_seed(candidate))

    def _write_folders(self) -> None:
        """Write ``best/`` and a folder for each member of the front whose weights are kept."""
        front, results = self.context.output / "front", self.writer.results()
        members = {c.number for c in self.writer.front()}
        for candidate in self._members():
            if candidate.number in members:
                self._write(results, candidate, front / str(candidate.number))
        for folder in front.glob("*/"):
            # One whose weights are gone is the last copy.
            if folder.name not in map(str, members):
                shutil.rmtree(folder)
        best = self.writer.leaders().best
        if best is not None:
            self._write(results, best, self.context.output / "best")

    def _write(self, results: Results, candidate: Candidate, folder: Path) -> None:
        architecture, img_size = self.writer.parts(candidate)
        recipe = self.trainer.sized(img_size, self.writer.best_seed(candidate))
        write_member(results, candidate, architecture, recipe, self._weights(candidate), folder)
