"""The end of a search: finalists, the test split, latencies, folders; one process at a time comes here."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

import torch

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line

from ...recipes.models import load_model
from ..context import SearchContext
from ..evaluators.checkpoints import are_kept, weights_folder
from ..evaluators.train import TrainEvaluator
from ..executors.outcome import describe_failure
from ..observer import Observer
from ..samplers.queue import unpooled_counterpart
from ..selection import finalists
from ..space.latency import measure_latency
from ..space.space import genotype_key
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
        observer: is told how it goes on.
    """

    def __init__(self, context: SearchContext, writer: ResultsWriter, observer: Observer) -> None:
        self.context, self.writer, self.observer = context, writer, observer
        self.record, self.trainer = writer.record, TrainEvaluator.of(context)

    def run(self) -> None:
        """Everything, in its order."""
        self.record.sync()
        if self.context.config.evaluator == "supernet":
            # For hours perhaps, while the tables and the report can be made again.
            self._train_finalists()
        with folder_lock(self.context.output):
            self._finish()

    def _finish(self) -> None:
        self._score_leaders()
        self._measure_latencies()
        self._write_folders()

    def _train_finalists(self) -> None:
        """After shared weights scored all: train the best of them, and the baselines, by the recipe."""
        config, scored, measure = self.context.config, self.record.candidates(), self.context.space.measure
        chosen = finalists(scored, config.finalists, config.keep_accuracy, measure)
        self.observer.on_phase("finalists", len(chosen))
        for done, candidate in enumerate(chosen, 1):
            self._train(candidate)
            self.observer.on_part("finalists", done)
        # Whoever leads by now has its like without pools beside it, as far as that was scored.
        while (plain := self._unpooled(self.writer.leaders().best, scored)) is not None and self._train(plain):
            pass

    def _unpooled(self, best: Candidate | None, scored: list[Candidate]) -> Candidate | None:
        """The same as the winner without pools, where the winner has some and that was scored."""
        if best is None or not best.pools:
            return None
        key = genotype_key(unpooled_counterpart(self.record, best))
        return next(
            (c for c in scored if c.state == "complete" and genotype_key(self.record.choice_of(c.number)) == key), None
        )

    def _train(self, finalist: Candidate) -> bool:
        """Train a finalist and note its accuracy, or why there is none: the others go on. False where it was."""
        if finalist.number in {*self.record.notes("trained"), *self.record.notes("untrained")}:
            return False
        try:
            score = self.trainer(*self.writer.parts(finalist), lambda epoch, epochs, loss, score: None)
        except (UserError, CommandError):
            raise
        except Exception as error:
            reason = describe_failure(error)
            if finalist.is_base:
                raise CommandError(f"the base itself can't be trained: {reason}") from error
            self.record.note("untrained", finalist.number, reason)
        else:
            self.record.note("trained", finalist.number, score.accuracy)
        return True

    def _score_leaders(self) -> None:
        """Score the winner and the baselines on the test split, once each; all have weights from then on."""
        for candidate in self.writer.leaders().all():
            architecture, img_size = self.writer.parts(candidate)
            there = are_kept(weights_folder(self.trainer.output, architecture, img_size))
            if there and candidate.number in self.record.notes("test_accuracy"):
                continue
            model = load_model(self.trainer.kept(architecture, img_size))
            known = candidate.accuracy if candidate.trained is None else candidate.trained
            again = self.trainer.score(model, self.context.held_out, img_size)
            # Another machine or number of threads may turn a close call.
            if abs(again - (known or 0.0)) > max(0.5, 100 / len(self.context.held_out)):
                raise CommandError(
                    f"candidate {candidate.number} scored {known} % and scores {again} % when loaded; delete "
                    f"{str(weights_folder(self.context.output, architecture, img_size))!r}, and the same command "
                    "trains it again"
                )
            if candidate.number in self.record.notes("test_accuracy"):
                continue
            try:
                tested = self.trainer.score(model, self.context.test_set, img_size)
            except (OSError, RuntimeError) as error:
                raise CommandError(
                    f"can't score the test split: {one_line(error)}; once that is repaired the same command goes on"
                ) from error
            self.record.note("test_accuracy", candidate.number, tested)

    def _measure_latencies(self) -> None:
        """Measure how long an image takes, for the leaders and the front, as far as their weights are kept."""
        members = self._members()
        if {c.number for c in members} <= set(self.record.notes("latency")):
            return
        device, channels = self.trainer.processes.device, self.context.input_size[0]
        models, times = {}, {c.number: list[float]() for c in members}
        for candidate in members:
            architecture, img_size = self.writer.parts(candidate)
            model = load_model(weights_folder(self.trainer.output, architecture, img_size)).eval()
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
        return [c for c in found.values() if are_kept(weights_folder(self.trainer.output, *self.writer.parts(c)))]

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
        weights = weights_folder(self.trainer.output, architecture, img_size)
        write_member(results, candidate, architecture, self.trainer.sized(img_size), weights, folder)
