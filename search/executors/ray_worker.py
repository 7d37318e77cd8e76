"""What runs in a worker of Ray's: one candidate after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ray import tune

from cp_vision import Architecture

from ..config.schema import SearchConfig
from ..evaluators.base import Evaluator, Score
from ..evaluators.pruning import is_rung
from ..study.contents import StudyContents
from .outcome import finite, outcome_of

__all__ = ["run_candidate"]

# A worker process runs many candidates of one search; setting up reads data sets and counts costs.
_ready: dict[str, Evaluator] = {}


def run_candidate(
    config: dict[str, Any], search: SearchConfig, evaluator: Evaluator | None, contents: StudyContents
) -> None:
    """Score a candidate and report to Tune: after epochs that are compared, and what came of it.

    Args:
        config: Tune's: the candidate, as the JSON of its ``architecture`` and its ``img_size``, and the epoch until
            which it was compared before (``passed``).
        search: the search.
        evaluator: in place of the search's.
        contents: what the study holds of the search: the recipe, and latencies.
    """
    torch.set_num_threads(max(1, int(search.cpus)))

    def on_epoch(epoch: int, epochs: int, loss: float, score: Callable[[], float]) -> None:
        if is_rung(search.early_stop, epoch, epochs) and epoch > config["passed"]:
            # Tune stops a candidate by SystemExit, raised here.
            tune.report({"accuracy": finite(score()), "epoch": epoch, "epochs": epochs})

    def evaluate() -> Score:
        own = evaluator or _evaluator_of(search, contents)
        return own(Architecture.from_json(config["architecture"]), config["img_size"], on_epoch)

    outcome = outcome_of(evaluate)
    tune.report({name: getattr(outcome, name) for name in ("kind", "accuracy", "params", "reason")})


def _evaluator_of(search: SearchConfig, contents: StudyContents) -> Evaluator:
    key = repr(search)
    if key not in _ready:
        # Seconds that are saved where another evaluator was given.
        from ..context import SearchContext
        from ..evaluators.make import make_evaluator
        from ..observer import Observer

        _ready[key] = make_evaluator(SearchContext(search, contents.make_recipe(), contents.space), Observer())
    return _ready[key]
