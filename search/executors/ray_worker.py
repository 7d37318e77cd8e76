"""What runs in a worker of Ray's: one candidate after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from ray import tune

from cp_vision import Architecture

from ..config.schema import SearchConfig
from ..evaluators.base import Evaluator, Score, SeededEvaluator
from ..evaluators.pruning import is_rung
from ..study.contents import StudyContents
from .outcome import finite, outcome_of

if TYPE_CHECKING:
    from ..context import SearchContext

__all__ = ["run_candidate"]

# A worker process runs many candidates of one search; setting up reads data sets and counts costs.
_contexts: dict[str, SearchContext] = {}
_evaluators: dict[str, Evaluator] = {}


def run_candidate(
    config: dict[str, Any], search: SearchConfig, evaluator: Evaluator | None, contents: StudyContents
) -> None:
    """Score a candidate and report to Tune: after epochs that are compared, and what came of it.

    Args:
        config: Tune's: the candidate, as the JSON of its ``architecture`` and its ``img_size``, the ``seed`` of a
            further training of a finalist, and the epoch until which it was compared before (``passed``).
        search: the search.
        evaluator: in place of the search's.
        contents: what the study holds of the search: the recipe, and latencies.
    """
    torch.set_num_threads(max(1, int(search.cpus)))
    seed = config["seed"]

    def on_epoch(epoch: int, epochs: int, loss: float, score: Callable[[], float]) -> None:
        if seed is None and is_rung(search.early_stop, epoch, epochs) and epoch > config["passed"]:
            # Tune stops a candidate by SystemExit, raised here.
            tune.report({"accuracy": finite(score()), "epoch": epoch, "epochs": epochs})

    def evaluate() -> Score:
        architecture, img_size = Architecture.from_json(config["architecture"]), config["img_size"]
        if seed is not None:
            return _trainer_of(search, contents)(architecture, img_size, on_epoch, seed)
        return (evaluator or _evaluator_of(search, contents))(architecture, img_size, on_epoch)

    outcome = outcome_of(evaluate)
    tune.report({name: getattr(outcome, name) for name in ("kind", "accuracy", "params", "reason")})


def _context_of(search: SearchConfig, contents: StudyContents) -> SearchContext:
    key = repr(search)
    if key not in _contexts:
        # Seconds that are saved where another evaluator was given.
        from ..context import SearchContext

        _contexts[key] = SearchContext(search, contents.make_recipe(), contents.space)
    return _contexts[key]


def _evaluator_of(search: SearchConfig, contents: StudyContents) -> Evaluator:
    key = repr(search)
    if key not in _evaluators:
        from ..evaluators.make import make_evaluator
        from ..observer import Observer

        _evaluators[key] = make_evaluator(_context_of(search, contents), Observer())
    return _evaluators[key]


def _trainer_of(search: SearchConfig, contents: StudyContents) -> SeededEvaluator:
    from ..evaluators.train import TrainEvaluator

    return TrainEvaluator.of(_context_of(search, contents))
