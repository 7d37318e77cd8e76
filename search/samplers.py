"""Samplers by name: our own, and Optuna's."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import optuna.samplers
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler

from cp_vision.errors import UserError, closest

__all__ = ["SAMPLERS", "SURROGATE", "check_sampler", "make_sampler", "sampler_names"]

SURROGATE = "surrogate"
"""The sampler that is not Optuna's; see :class:`GuidedProposer`."""


def _found() -> dict[str, Callable[[int], BaseSampler]]:
    """Every sampler of Optuna's that needs nothing but a seed, by its name in small letters."""
    samplers: dict[str, Callable[[int], BaseSampler]] = {}
    for name in optuna.samplers.__all__:
        kind = getattr(optuna.samplers, name)
        if not name.endswith("Sampler") or not inspect.isclass(kind) or inspect.isabstract(kind):
            continue
        parameters = inspect.signature(kind).parameters
        needed = [p for p in parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        # CMA-ES moves in numbers; what becomes of a site is none. QMC counts what it gave in this process alone, so
        # that a search that goes on would be another one.
        if needed or "seed" not in parameters or name in ("CmaEsSampler", "QMCSampler"):
            continue
        samplers[name.removesuffix("Sampler").lower()] = _seeded(kind)
    return samplers


def _seeded(kind: Any) -> Callable[[int], BaseSampler]:
    return lambda seed: kind(seed=seed)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    **_found(),
    # Candidates that other workers try count as mediocre ones until they are finished.
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, group=False, constant_liar=True),
    "nsgaii": lambda seed: NSGAIISampler(population_size=20, seed=seed),
}


def sampler_names() -> list[str]:
    """Every sampler, the default first."""
    return [SURROGATE, *SAMPLERS]


def check_sampler(sampler: str) -> None:
    """Raise a UserError that names the samplers unless ``sampler`` is one."""
    names = sampler_names()
    if sampler not in names:
        raise UserError(f"sampler {sampler!r} is not one of {', '.join(names)}{closest(sampler, names)}")


def make_sampler(sampler: str, seed: int) -> BaseSampler:
    """One of Optuna's samplers by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[sampler](seed)
