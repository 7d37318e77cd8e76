"""A search with a scorer that trains nothing, or a training of its base, as a process that can be killed."""

import os
import signal
from typing import Any

from commands import SERVER
from fake_evaluator import FakeEvaluator
from training_process import start as start_with_workers

from cp_vision.recipes.training.trainer import Trainer
from cp_vision.search import Search, SearchConfig


def start(values: dict[str, Any], seconds: float = 0.0, deadly: list[str] | None = None) -> Any:
    """Start a search.

    Args:
        values: of its ``SearchConfig``.
        seconds: that a score takes.
        deadly: dropped blocks of the candidate that ends the process.

    Returns:
        The process; killed where this one ends.
    """
    process = SERVER.Process(target=_search, args=(dict(os.environ), values, seconds, deadly), daemon=True)
    process.start()
    return process


def _search(environment: dict[str, str], values: dict[str, Any], seconds: float, deadly: list[str] | None) -> None:
    # A fork has the environment that the server began with, not its starter's.
    os.environ.update(environment)

    def before(architecture, call):
        if deadly is not None and list(architecture.drops) == deadly:
            os.abort()

    Search(SearchConfig(**values)).run(evaluator=FakeEvaluator(before, epochs=9, seconds=seconds))


def start_training(values: dict[str, Any], update: int) -> Any:
    """Start a training of a search's base that is killed (SIGKILL) right before one of its updates.

    Args:
        values: of its ``SearchConfig``.
        update: which, from 1, of those that this process takes.
    """
    return start_with_workers(_train, values, update)


def _train(values: dict[str, Any], update: int) -> None:
    search = Search(SearchConfig(**values))
    kill_at(update)
    search.trainer(search.space.base, None, lambda *_: None)


def kill_at(update: int) -> None:
    """Let this process be killed right before one of the updates that it takes from now on, from 1."""
    real, left = Trainer._update, [update]

    def counted(self: Trainer, batches: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, batches)

    Trainer._update = counted
