"""The architecture search: where to pool and which blocks to drop under a budget.

Needs Optuna, and for clusters Ray (``pip install "cp-vision[search]"``); they are imported when a name of this module
is first used.

Source: what is taken from papers is named where it is used; spaces, exact costs and budgets kept before any training
are our own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.schema import SearchConfig
    from .config.space_options import SpaceOptions, load_space_options
    from .evaluators.base import Evaluator, NotKeptError, OnEpoch, Score, StoppedEarly
    from .fit.compress import compress
    from .fit.kinds import register_option
    from .fit.result import Compressed
    from .fit.scores import Scores, read_scores
    from .fit.solve import Solved, solve
    from .observer import Observer
    from .runner import Proposal, Search, run
    from .samplers.registry import register_sampler
    from .selection import pareto_front
    from .space.budget import parse_budgets
    from .space.cost_model import measure_space
    from .space.space import Space
    from .types import BlockCost, Candidate, Limit, Results

_HOMES = {
    "BlockCost": "types",
    "Candidate": "types",
    "Compressed": "fit.result",
    "SpaceOptions": "config.space_options",
    "Evaluator": "evaluators.base",
    "Limit": "types",
    "NotKeptError": "evaluators.base",
    "Observer": "observer",
    "OnEpoch": "evaluators.base",
    "Proposal": "runner",
    "Results": "types",
    "Scores": "fit.scores",
    "Search": "runner",
    "SearchConfig": "config.schema",
    "Score": "evaluators.base",
    "Solved": "fit.solve",
    "Space": "space.space",
    "StoppedEarly": "evaluators.base",
    "compress": "fit.compress",
    "load_space_options": "config.space_options",
    "measure_space": "space.cost_model",
    "pareto_front": "selection",
    "read_scores": "fit.scores",
    "solve": "fit.solve",
    "parse_budgets": "space.budget",
    "register_option": "fit.kinds",
    "register_sampler": "samplers.registry",
    "run": "runner",
}

__all__ = [
    "BlockCost",
    "Candidate",
    "Compressed",
    "Evaluator",
    "Limit",
    "NotKeptError",
    "Observer",
    "OnEpoch",
    "Proposal",
    "Results",
    "Score",
    "Scores",
    "Search",
    "SearchConfig",
    "Solved",
    "Space",
    "SpaceOptions",
    "StoppedEarly",
    "compress",
    "load_space_options",
    "measure_space",
    "pareto_front",
    "parse_budgets",
    "read_scores",
    "register_option",
    "register_sampler",
    "run",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
