"""The samplers by the names of the command line, and the door for one's own."""

from __future__ import annotations

from collections.abc import Callable

from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from cp_vision.shared.errors import UserError, closest

from ..space.space import Space
from .bayesian import BayesianSampler
from .budget import BudgetSampler
from .optuna import OptunaSampler

__all__ = ["SAMPLERS", "make_sampler", "register_sampler"]

Maker = Callable[[Space, int, str, float | None], BaseSampler]


def _optuna(factory: Callable[[int], BaseSampler]) -> Maker:
    """How a sampler that Optuna's interface knows by a seed alone is made for a search."""

    def make(space: Space, seed: int, objective: str, keep_accuracy: float | None) -> BaseSampler:
        return OptunaSampler(factory, space, seed, objective, keep_accuracy)

    return make


SAMPLERS: dict[str, Maker] = {
    "surrogate": BayesianSampler,
    "bruteforce": _optuna(lambda seed: BruteForceSampler(seed=seed)),
    "gp": _optuna(lambda seed: GPSampler(seed=seed)),
    "nsgaii": _optuna(lambda seed: NSGAIISampler(population_size=20, seed=seed)),
    "nsgaiii": _optuna(lambda seed: NSGAIIISampler(seed=seed)),
    "random": _optuna(lambda seed: RandomSampler(seed=seed)),
    # Candidates that other workers try count as mediocre ones until they are finished.
    "tpe": _optuna(lambda seed: TPESampler(seed=seed, multivariate=True, group=False, constant_liar=True)),
}
"""Makes a sampler of a space, a seed, an objective and an accuracy to keep."""


def register_sampler(name: str, factory: Callable[[int], BaseSampler]) -> None:
    """Let a search use a sampler of your own, or of Optuna's or OptunaHub's, by a name.

    For each proposal the sampler is made anew and learns from the trials that are there, so one that keeps what it
    learned in itself won't do. It may propose what is over the budgets: that is repaired.

    Args:
        name: what ``SearchConfig.sampler`` says.
        factory: makes the sampler of a seed.

    Raises:
        UserError: the name is taken.

    Example::

        from optuna.samplers import TPESampler
        from cp_vision.search import SearchConfig, register_sampler, run

        register_sampler("careful_tpe", lambda seed: TPESampler(seed=seed, n_startup_trials=20))
        run(SearchConfig(base="resnet18", sampler="careful_tpe", objective="single"))
    """
    if name in SAMPLERS:
        raise UserError(f"sampler {name!r} is there already; choose another name")
    SAMPLERS[name] = _optuna(factory)


def make_sampler(
    name: str, space: Space, seed: int, objective: str = "single", keep_accuracy: float | None = None
) -> BudgetSampler:
    """A sampler by its name, whose proposals keep the budgets of the space.

    Args:
        name: a name in :data:`SAMPLERS`.
        space: the space, with its budgets.
        seed: seed of what is drawn.
        objective: ``single`` (accuracy) or ``pareto`` (accuracy and cost).
        keep_accuracy: how many points below the base's accuracy are allowed; None for no such bound.

    Raises:
        UserError: an unknown name.
    """
    if name not in SAMPLERS:
        raise UserError(f"sampler {name!r} is not one of {', '.join(SAMPLERS)}{closest(name, list(SAMPLERS))}")
    return BudgetSampler(SAMPLERS[name](space, seed, objective, keep_accuracy), space, seed)
