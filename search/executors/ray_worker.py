"""What runs in a worker of Ray's: one candidate after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ray import tune

from cp_vision.shared.errors import UserError

from ..config.schema import SearchConfig
from ..context import SearchContext
from ..evaluators.base import Evaluator, NotKeptError
from ..evaluators.pruning import is_rung
from ..observer import Observer
from ..space.space import Space
from ..study.contents import StudyContents
from .outcome import describe_failure, finite

__all__ = ["run_candidate"]

# A worker process runs many candidates of one search; setting up reads data sets and counts costs.
_ready: dict[str, tuple[Space, Evaluator]] = {}


def run_candidate(
    config: dict[str, Any], search: SearchConfig, evaluator: Evaluator | None, contents: StudyContents
) -> None:
    """Score a candidate and report to Tune: after epochs that are compared, and what came of it.

    Args:
        config: Tune's: the candidate's choice.
        search: the search.
        evaluator: in place of the search's.
        contents: what the study holds of the search: the recipe, and latencies.
    """
    torch.set_num_threads(max(1, int(search.cpus)))

    def on_epoch(epoch: int, epochs: int, loss: float, score: Callable[[], float]) -> None:
        if is_rung(search.early_stop, epoch, epochs):
            accuracy = finite(score())
            tune.report({"kind": "epoch", "accuracy": accuracy, "epoch": epoch, "epochs": epochs})

    # Tune stops a candidate by SystemExit, raised where it reports.
    result: dict[str, Any] = {"kind": "failed", "accuracy": -1.0}
    try:
        space, own = _set_up(search, contents)
        choice = config["choice"]
        score = (evaluator or own)(space.architecture(choice), space.img_size(choice), on_epoch)
        result = {"kind": "complete", "accuracy": finite(score.accuracy), "params": score.params}
    except UserError as error:
        result |= {"kind": "mistake", "reason": str(error)}
    except NotKeptError as error:
        result |= {"kind": "not kept", "reason": str(error)}
    except Exception as error:
        result |= {"reason": describe_failure(error)}
    tune.report(result)


def _set_up(search: SearchConfig, contents: StudyContents) -> tuple[Space, Evaluator]:
    key = repr(search)
    if key not in _ready:
        from ..evaluators.make import make_evaluator

        context = SearchContext(search, contents.make_recipe(), contents.space)
        _ready[key] = context.space, make_evaluator(context, Observer())
    return _ready[key]
