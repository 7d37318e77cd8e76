"""The architecture search: where to pool and which blocks to drop under a MAC budget.

Needs Optuna (``pip install "cp-vision[search]"``), which is imported when a name of this module is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .budget import parse_budget
    from .config import SearchConfig
    from .driver import Search, run
    from .executor import Observer
    from .results import BlockCost, Candidate, Results, pareto_front
    from .space import Space, measure_space

__all__ = [
    "BlockCost",
    "Candidate",
    "Observer",
    "Results",
    "Search",
    "SearchConfig",
    "Space",
    "measure_space",
    "pareto_front",
    "parse_budget",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in ("results", "budget", "config", "space", "executor", "driver"):
            module = importlib.import_module(f".{home}", __name__)
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
