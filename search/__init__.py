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
    from .budget import parse_budgets
    from .choices import Choices, load_choices
    from .config import SearchConfig
    from .driver import Search, run
    from .executor import Observer
    from .measuring import measure_space
    from .results import BlockCost, Candidate, Limit, Results, pareto_front
    from .space import Space

__all__ = [
    "BlockCost",
    "Candidate",
    "Choices",
    "Limit",
    "Observer",
    "Results",
    "Search",
    "SearchConfig",
    "Space",
    "load_choices",
    "measure_space",
    "pareto_front",
    "parse_budgets",
    "run",
]

_HOMES = ("results", "budget", "choices", "config", "space", "measuring", "executor", "driver")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f".{home}", __name__)
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
