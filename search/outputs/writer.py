"""Keeping the tables, the report and the disk in order while a search goes on."""

from __future__ import annotations

import dataclasses
from typing import Any

from cp_vision.shared.errors import UserError

from ...recipes.models import load_model
from ..config.addresses import hide_password
from ..context import SearchContext
from ..evaluators.sensitivity import block_sensitivity, untrained
from ..evaluators.supernet.evaluator import kendall_tau
from ..evaluators.train import weights_folder
from ..selection import Leaders, leaders, pareto_front
from ..study.trials import TrialStore
from ..study.workers import folder_lock
from ..types import Candidate, Results
from .importance import site_importance
from .model_folder import write_tables

__all__ = ["ResultsWriter"]


class ResultsWriter:
    """What the record holds, as candidates, results and files.

    Args:
        context: the search.
        record: what was tried.
        trains: whether candidates are trained by the recipe or score with weights, so that there are weights.
    """

    def __init__(self, context: SearchContext, record: TrialStore, trains: bool) -> None:
        self.context, self.record, self.trains = context, record, trains

    def candidates(self) -> list[Candidate]:
        """The finished candidates, with the accuracies of their own trainings where shared weights scored them."""
        trained, failed = self.record.notes("trained"), self.record.notes("untrained")
        return [
            dataclasses.replace(c, trained=trained.get(c.number), reason=failed.get(c.number, c.reason))
            for c in self.record.candidates()
        ]

    def leaders(self) -> Leaders:
        """Who leads, by their own trainings where there are any."""
        return leaders(self.candidates(), self.context.config.keep_accuracy, self.context.space.measure)

    def front(self) -> list[Candidate]:
        """The members of the front that keep the budgets, cheapest first."""
        candidates = {c.number: c for c in self.candidates()}
        return [candidates[number] for number in pareto_front(candidates.values(), self.context.space.measure)]

    def parts(self, candidate: Candidate) -> tuple[Any, int | None]:
        """A candidate's architecture and image size."""
        choice = self.record.choice_of(candidate.number)
        return self.context.space.architecture(choice), self.context.space.img_size(choice)

    def results(self, importance: bool = True) -> Results:
        """Everything that the report shows; how much each site matters takes longer than all the rest."""
        context, record, candidates, now = self.context, self.record, self.candidates(), self.leaders()
        macs = next((limit for limit in context.space.limits if limit.measure == "macs"), None)
        pairs = [(c.accuracy, c.trained) for c in candidates if c.accuracy is not None and c.trained is not None]
        return Results(
            base=context.config.base,
            dataset=context.recipe.dataset or context.recipe.data_dir or "",
            recipe=context.recipe_name,
            command=hide_password(context.config.command),
            seed=context.config.seed,
            budget=context.config.budget_text,
            budget_macs=None if macs is None else int(macs.most),
            base_macs=context.space.base_macs,
            blocks=context.space.blocks,
            candidates=tuple(candidates),
            best=now.best.number if now.best else None,
            best_drops_only=now.best_drops_only.number if now.best_drops_only else None,
            test_accuracy=record.notes("test_accuracy"),
            evaluator=context.config.evaluator,
            limits=context.space.limits,
            keep_accuracy=context.config.keep_accuracy,
            importance=site_importance(record) if importance else {},
            sensitivity=record.get("sensitivity") or {},
            measured_latency=record.notes("latency"),
            agreement=kendall_tau(pairs),
            commands=self._commands(),
        )

    def write(self, importance: bool = True) -> Results:
        """Write the tables and the report, and return what they show; see :meth:`results`."""
        with folder_lock(self.context.output):
            self.record.sync()
            results = self.results(importance)
            write_tables(results, self.context.output)
        return results

    def after_trial(self, candidate: Candidate) -> None:
        """Bring everything up to date after a candidate."""
        if candidate.is_base:
            self.measure_sensitivity()
        with folder_lock(self.context.output):
            if self.trains:
                self._free_disk()
        # A search of thousands of trials would else spend its time on this.
        self.write(importance=candidate.number % 25 == 24)

    def measure_sensitivity(self) -> None:
        """Measure what the base loses without each block, once: what is proposed first depends on it."""
        self.record.sync()
        finished = [trial.number for trial in self.record.finished]
        if not self.trains or not finished or self.record.get("sensitivity") is not None:
            return
        context, trainer = self.context, self.context.trainer
        architecture, img_size = self.parts(self.record.candidates()[0])
        if context.config.evaluator == "sensitivity":
            model = untrained(trainer, architecture)
        elif weights_folder(trainer.output, architecture, img_size).is_dir():
            try:
                model = load_model(weights_folder(trainer.output, architecture, img_size))
            except UserError:
                # They are there for the sake of the start alone, which goes without.
                return
        else:
            return
        names = [block.name for block in context.space.blocks if block.droppable]
        self.record.set("sensitivity", block_sensitivity(model, names, trainer))

    def _free_disk(self) -> None:
        """Delete the weights of all candidates but those with a role, of the front, and those being trained."""
        self.record.sync()
        kept = [*self.leaders().all(), *self.front()[::-1][: self.context.config.keep_checkpoints]]
        space = self.context.space
        running = [(space.architecture(t.params), space.img_size(t.params)) for t in self.record.running]
        self.context.trainer.keep([*map(self.parts, kept), *running])

    def _commands(self) -> dict[str, str]:
        """Commands to go on with, by what they do."""
        output = self.context.output
        best = output / "best"
        if self.context.config.evaluator == "sensitivity":
            return {}
        trials = self.context.config.trials
        return {
            "Go on after a stop, or with more trials": f"cp-search resume {output} --trials {trials}",
            "Write any candidate as a model folder": f"cp-search export {output} NUMBER",
            "Train the winner again": f"cp-train {best / 'recipe.yaml'} --output {output}-best",
            "Score the winner": f"cp-train {best / 'recipe.yaml'} --eval {best}",
        }
