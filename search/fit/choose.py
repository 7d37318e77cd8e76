"""The best model under a budget, and its counterparts without pools, and without anything in the place of blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from cp_vision import UserError

from ..types import Measure
from .accuracy import Evaluate, evaluated
from .budget import Budget, cost_in_words, next_saving
from .build import architecture_of, build, refit
from .distil import distil
from .explore import explore
from .kinds import DROP
from .latency import latency_share
from .library import Library, base_costs
from .option import Candidate, Option
from .result import Outcome, Point
from .stopwatch import Stopwatch
from .throughput import Throughput

__all__ = ["Chooser"]

_BEST, _UNPOOLED, _DROP = "best", "no pools", "drop only"


class Chooser:
    """Chooses from a library.

    Args:
        library: the library.
        tries: candidates with real scores for each choice.
        to_refit: batches of images for the fit at the end.
        steps: of local training in it.
        epochs: of distillation after it.
        training: batches of images for it.
        evaluate: what to tell of the chosen ones.
        counterparts: whether these are wanted.
        measure: what budgets are of.
        throughput: measures images a second of what was chosen; None measures none.
        watch: counts the time.
    """

    def __init__(
        self,
        library: Library,
        tries: int,
        to_refit: Any,
        steps: int,
        epochs: int,
        training: Iterable[Tensor],
        evaluate: Evaluate | None,
        counterparts: bool,
        measure: Measure,
        throughput: Throughput | None,
        watch: Stopwatch,
    ) -> None:
        self._measure: Measure = measure
        self._throughput = throughput
        self._library, self._tries, self._epochs = library, tries, epochs
        self._to_refit, self._steps = to_refit, steps
        self._training, self._evaluate, self._watch = training, evaluate, watch
        self._blocks = len(library.bench.blocks)
        options = library.options
        allowed = {
            _DROP: [option for option in options if option.kind == DROP],
            _UNPOOLED: [option for option in options if option.plain],
            _BEST: list(options),
        }
        self._allowed: dict[str, list[Option]] = allowed if counterparts else {_BEST: allowed[_BEST]}
        self._scores: dict[Candidate, float] = {}
        # Of one budget: a counterpart may be the best as well.
        self._made: dict[Candidate, tuple[nn.Module, Outcome]] = {}

    def point(self, budget: Budget) -> Point:
        """The best within a budget, and its counterparts.

        Raises:
            UserError: by what it costs as a whole, no model is within the limit.
        """
        limit = budget.limit(self._library.base_costs)
        self._made.clear()
        found: dict[str, tuple[nn.Module, Outcome]] = {}
        for name, options in self._allowed.items():
            if (made := self._choose(options, limit)) is not None:
                found[name] = made
        if not found:
            raise UserError(
                f"budget {budget.text!r} ({cost_in_words(self._measure, limit)}) can't be met; give a larger one"
            )
        timed = {outcome.candidate: self._timed(outcome, model) for model, outcome in found.values()}
        found = {name: (model, timed[outcome.candidate]) for name, (model, outcome) in found.items()}
        # What the counterparts may be made of, the best may as well.
        model, best = found[min(found, key=lambda name: (found[name][1].score, name != _BEST))]
        found.pop(_BEST, None)
        if _UNPOOLED in self._allowed and all(option.plain for option in best.candidate):
            # It is the best of those without pools as well.
            found[_UNPOOLED] = (model, best)
        library = self._library
        architecture = architecture_of(library.bench.model, best.candidate, library.bench.images.size, best.macs)
        counterparts = {name: dataclasses.replace(outcome, name=name) for name, (_, outcome) in found.items()}
        order = [name for name in (_UNPOOLED, _DROP) if name in counterparts]
        return Point(
            budget=budget.text,
            measure=self._measure,
            limit=limit,
            model=model,
            best=dataclasses.replace(best, name=_BEST),
            counterparts={name: counterparts[name] for name in order},
            architecture=architecture,
        )

    def _choose(self, options: Sequence[Option], limit: int) -> tuple[nn.Module, Outcome] | None:
        """The best of these options; what it costs is counted on the model."""
        saved = self._library.base_costs[self._measure] - limit
        while True:
            with self._watch("choice"):
                scored = explore(
                    options,
                    self._blocks,
                    saved,
                    self._score,
                    self._tries,
                    dict(self._scores),
                    self._measure,
                    self._library.prior,
                )
            if not scored:
                return None
            made = self._make(scored[0][1])
            if (cost := made[1].costs[self._measure]) <= limit:
                return made
            # What the parts add up to is not what the model costs.
            saved = next_saving(saved, cost, limit)
            self._made.pop(scored[0][1])

    def _score(self, candidate: Candidate) -> float:
        if candidate not in self._scores:
            self._scores[candidate] = self._library.score(candidate)
        return self._scores[candidate]

    def _make(self, candidate: Candidate) -> tuple[nn.Module, Outcome]:
        """The candidate's model: with the library's stand-ins, or fitted again where that is better."""
        if candidate in self._made:
            return self._made[candidate]
        with self._watch("refit"):
            model = build(self._library, candidate)
            score, refitted = self._library.bench.score_model(model), False
            if any(option.kind != DROP for option in candidate):
                other = refit(self._library, model, self._to_refit, self._steps)
                if (of_other := self._library.bench.score_model(other)) < score:
                    model, score, refitted = other, of_other, True
        outcome = self._evaluated(Outcome(_BEST, candidate, self._costs(model), score, refitted), model)
        if self._epochs and candidate:
            with self._watch("distillation"):
                model, score, epochs = distil(
                    self._library.bench, model, self._epochs, self._training, self._library.files.distilled
                )
            trained = dataclasses.replace(outcome, score=score, epochs=epochs, before=outcome)
            outcome = self._evaluated(trained, model) if epochs else trained
        self._made[candidate] = (model, outcome)
        return self._made[candidate]

    def _timed(self, outcome: Outcome, model: nn.Module) -> Outcome:
        if self._throughput is None:
            return outcome
        with self._watch("speed"):
            return dataclasses.replace(outcome, rates=self._throughput.of(model))

    def _evaluated(self, outcome: Outcome, model: nn.Module) -> Outcome:
        if self._evaluate is None:
            return outcome
        with self._watch("evaluation"):
            return dataclasses.replace(outcome, accuracy=evaluated(self._evaluate, model))

    def _costs(self, model: nn.Module) -> dict[Measure, int]:
        costs = base_costs(model)
        if self._measure == "latency":
            bench = self._library.bench
            share = latency_share(model, bench.model, bench.images.held_out[0][:1])
            costs["latency"] = round(share * self._library.base_costs["latency"])
        return costs
