"""Optuna's samplers by the names of the command line."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

__all__ = ["SAMPLERS", "make_sampler"]

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "bruteforce": lambda seed: BruteForceSampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed),
    "nsgaii": lambda seed: NSGAIISampler(population_size=20, seed=seed),
    "nsgaiii": lambda seed: NSGAIIISampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    # Candidates that other workers try count as mediocre ones until they are finished.
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, group=False, constant_liar=True),
}
"""Every sampler of Optuna's for choices among names, but for QMC: it counts what it gave in this process alone, so that
a search that goes on would be another one."""


def make_sampler(sampler: str, seed: int) -> BaseSampler:
    """One of Optuna's samplers by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return SAMPLERS[sampler](seed)
