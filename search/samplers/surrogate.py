"""A model of accuracy: what becomes of each site adds something, and so does every pair of sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..space.space import Genotype

__all__ = ["Surrogate"]

Array = NDArray[np.float64]

# Of standardized accuracies: what all sites together may add, all pairs together, and what is rng.
_SITES, _PAIRS, _NOISE = 5.0, 2.0, 0.3
_LEVEL = 100.0


class Surrogate:
    """Bayesian linear regression on what becomes of each site and on all pairs of sites.

    The prior variances of all sites together, and of all pairs together, don't depend on how many there are. Pairs are
    never written down: in the kernel they are the square of what two candidates have in common.

    Args:
        choices: what may become of each site, and the settings; the first value of each is the base's.

    Source: the model of Baptista and Poloczek, *Bayesian optimization of combinatorial structures*, ICML 2018,
    arXiv 1806.08838, with a Gaussian prior in place of their sparse one.
    """

    def __init__(self, choices: Mapping[str, Sequence[Any]]) -> None:
        self._columns: dict[tuple[str, Any], int] = {}
        for name, values in choices.items():
            for value in values[1:]:
                self._columns[name, value] = len(self._columns)
        count = len(choices)
        self._site, self._pair = _SITES / max(1, count), _PAIRS / max(1, count * (count - 1) / 2)
        self._seen = self._encode([])
        self._mean, self._scale = 0.0, 1.0

    def fit(self, choices: Sequence[Genotype], accuracies: Sequence[float], pending: Sequence[Genotype] = ()) -> None:
        """Learn from candidates.

        Args:
            choices: the candidates.
            accuracies: of each; two different ones at least.
            pending: candidates that are being tried. They count as if they came out as is expected of them, so that
                what is like them promises less.
        """
        values = np.asarray(accuracies, dtype=float)
        self._mean, self._scale = float(values.mean()), float(values.std())
        standard = (values - self._mean) / self._scale
        self._seen = self._encode(choices)
        self._solve(standard)
        if pending:
            features = self._encode(pending)
            expected, _ = self._predict(features)
            self._seen = np.concatenate([self._seen, features])
            self._solve(np.concatenate([standard, expected]))

    def predict(self, choices: Sequence[Genotype]) -> tuple[Array, Array]:
        """Expected accuracies of candidates, and the standard deviations of what they may score, rng included."""
        expected, variance = self._predict(self._encode(choices))
        return self._mean + self._scale * expected, self._scale * np.sqrt(variance + _NOISE)

    def _solve(self, values: Array) -> None:
        kernel = self._kernel(self._seen, self._seen) + _NOISE * np.eye(len(values))
        self._inverse = np.linalg.inv(kernel)
        self._weights = self._inverse @ values

    def _predict(self, features: Array) -> tuple[Array, Array]:
        kernel = self._kernel(features, self._seen)
        own = features.sum(1)
        variance = _LEVEL + self._site * own + self._pair * (own * own - own) / 2
        variance = variance - np.einsum("ij,jk,ik->i", kernel, self._inverse, kernel)
        return kernel @ self._weights, np.maximum(variance, 0.0)

    def _kernel(self, one: Array, other: Array) -> Array:
        common = one @ other.T
        kernel: Array = _LEVEL + self._site * common + self._pair * (common * common - common) / 2
        return kernel

    def _encode(self, choices: Sequence[Genotype]) -> Array:
        encoded = np.zeros((len(choices), len(self._columns)))
        for row, choice in enumerate(choices):
            for item in choice.items():
                column = self._columns.get(item)
                if column is not None:
                    encoded[row, column] = 1.0
        return encoded
