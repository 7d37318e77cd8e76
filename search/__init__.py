"""The architecture search: where to pool and which blocks to drop under a MAC budget."""

try:
    import optuna as _optuna  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("cp_vision.search needs Optuna; pip install 'cp-vision[search]'") from error

from .budget import parse_budget
from .config import SearchConfig
from .executor import Observer
from .results import BlockCost, Candidate, Results, pareto_front
from .run import Search, run
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
