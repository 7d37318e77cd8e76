"""The best architecture under a budget by a table of scores alone: no weights, no images, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cp_vision import Architecture
from cp_vision.shared.errors import UserError, one_line
from cp_vision.shared.on_meta import on_meta

from ..types import Measure
from .budget import Budget, check_reachable, next_saving, read_sweep
from .build import with_changes
from .explore import expected_best
from .library import base_costs
from .option import Candidate
from .scores import Scores

__all__ = ["Solved", "solve"]


@dataclass(frozen=True)
class Solved:
    """What a table says is best within a budget.

    Attributes:
        budget: as it was given.
        measure: what it is of.
        candidate: what is changed.
        costs: of the whole model: MACs of one image, and parameters.
        score: what it should be, before the fit front to back.
        is_measured: whether it was scored as a whole when the table was made; else it is predicted from other
            candidates and from scores of its changes alone.
        architecture: of the model.
    """

    budget: str
    measure: Measure
    candidate: Candidate
    costs: dict[Measure, int]
    score: float
    is_measured: bool
    architecture: Architecture


def solve(scores: Scores, budget: str | Sequence[str]) -> list[Solved]:
    """Choose for each budget; what the model costs is counted as a whole.

    Args:
        scores: the table.
        budget: of MACs or parameters, as for :func:`cp_vision.search.compress`.

    Raises:
        UserError: a budget that can't be met, or of a device; a base that isn't timm's, or that timm builds otherwise
            here.
    """
    budgets = read_sweep(budget)
    measure = budgets[0].measure
    if measure == "latency":
        raise UserError(f"budget {budget!r} is of a device, of which scores know nothing; give MACs or parameters")
    if scores.base is None:
        raise UserError("these scores are of a base that is none of timm's, so no architecture can be named")
    own = _costs(scores.base, scores)
    if own != dict(scores.base_costs):
        raise UserError(
            f"{scores.name} has {own['macs']} MACs and {own['params']} parameters here, in the scores "
            f"{scores.base_costs['macs']} and {scores.base_costs['params']}, made with {_made_with(scores)}; make them "
            "again"
        )
    check_reachable(budgets, scores.base_costs, scores.options, len(scores.blocks))
    return [_solve(scores, scores.base, one) for one in budgets]


def _solve(scores: Scores, base: Architecture, budget: Budget) -> Solved:
    measure, limit = budget.measure, budget.limit(scores.base_costs)
    saved = scores.base_costs[measure] - limit
    while True:
        found = expected_best(scores.options, len(scores.blocks), saved, dict(scores.scored), measure)
        if found is None:
            raise UserError(f"budget {budget.text!r} can't be met; give a larger one")
        candidate, score, is_measured = found
        architecture = with_changes(base, candidate)
        costs = _costs(architecture, scores)
        if costs[measure] <= limit:
            return Solved(budget.text, measure, candidate, costs, score, is_measured, architecture)
        saved = next_saving(saved, costs[measure], limit)


def _costs(architecture: Architecture, scores: Scores) -> dict[Measure, int]:
    try:
        with on_meta():
            model = architecture.build()
        return base_costs(model, scores.input_size)
    except (TypeError, RuntimeError) as error:
        raise UserError(
            f"timm doesn't build {scores.name} with what the scores say ({one_line(error)}); they were made with "
            f"{_made_with(scores)}"
        ) from error


def _made_with(scores: Scores) -> str:
    return ", ".join(f"{name} {version}" for name, version in scores.versions.items())
