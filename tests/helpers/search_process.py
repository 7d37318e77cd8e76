"""A search with a scorer that trains nothing, as a process of its own, which can be killed."""

import os
from typing import Any

from commands import SERVER
from fake_evaluator import FakeEvaluator

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
