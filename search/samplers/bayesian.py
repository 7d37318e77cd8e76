"""The default sampler: Bayesian optimisation with a Gaussian process for accuracy and costs that are known."""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from ..space.repair import BudgetRepair
from ..space.space import Genotype, GenotypeKey, Space, genotype_key
from ..study.trials import genotypes
from .budget import seed_of
from .optuna import accuracy_floor

__all__ = ["BayesianSampler"]

Array = NDArray[np.float64]

# Scored candidates before the model is asked; how many it is asked about: drawn at random, and near the best.
_AT_RANDOM, _DRAWN, _PARENTS, _NEAR = 6, 300, 10, 30
# Hyper-parameters are fitted to so many candidates at most, since a fit takes time that grows with their cube.
_FITTED = 256


class BayesianSampler(BaseSampler):
    """Proposes the candidate within the budgets of which most is expected.

    A Gaussian process (a linear part and a smooth one over one-hot choices, with noise; all variances are fitted)
    predicts accuracy; what a candidate costs is known. The acquisition is

    - with ``keep_accuracy``: what is saved, times the probability that the accuracy is kept;
    - ``single``: the expected improvement on the best;
    - ``pareto``: the expected improvement of the area under the front of cost and accuracy.

    Candidates that were stopped early or failed are not fitted; those that others are trying count as if they came out
    as expected. It keeps nothing between proposals: the study and the seed decide.

    Args:
        space: the space, with its budgets.
        seed: seed of what is drawn.
        objective: ``pareto`` or ``single``.
        keep_accuracy: how many points below the base's accuracy are allowed; None for no such bound.

    Source: Jones et al., *Efficient global optimization of expensive black-box functions*, 1998 (expected
    improvement); Emmerich et al., *Single- and multiobjective evolutionary optimization assisted by Gaussian random
    field metamodels*, 2006 (of the area; with one known objective it is a sum of expected improvements); Gardner et
    al., *Bayesian optimization with inequality constraints*, ICML 2014 (times the probability).
    """

    def __init__(self, space: Space, seed: int, objective: str = "pareto", keep_accuracy: float | None = None) -> None:
        self.space, self.seed, self.objective, self.keep_accuracy = space, seed, objective, keep_accuracy
        self._repair = BudgetRepair(space)
        self._columns = [(name, value) for name, values in self._repair.choices.items() for value in values]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing by itself: it is asked for a whole genotype; see :class:`BudgetSampler`."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole genotype within the budgets, new if one was found among those that were looked at."""
        trials = genotypes(study, self._repair.choices)
        rng = random.Random(seed_of(self.seed, len(trials)))
        scored = [other for other in trials if other.state == TrialState.COMPLETE]
        accuracies = np.array([other.values[0] for other in scored])
        guess = len(scored) < _AT_RANDOM or np.ptp(accuracies) == 0
        parents = [] if guess else [scored[i].params for i in np.argsort(-accuracies, kind="stable")[:_PARENTS]]
        tried = {genotype_key(other.params) for other in trials}
        found = self._candidates(tried, parents, rng, 1 if guess else _DRAWN)
        if guess or len(found) < 2:
            return found[0] if found else self._repair.draw(rng) or self.space.choice()
        pending = [other.params for other in trials if not other.state.is_finished()]
        floor = accuracy_floor(trials, self.space, self.keep_accuracy)
        return found[self._most_promising(found, [other.params for other in scored], accuracies, pending, floor)]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Not there: what it proposes is a whole genotype."""
        raise ValueError(f"{param_name!r} is not of this space")

    def _candidates(
        self, tried: Collection[GenotypeKey], parents: Sequence[Genotype], rng: random.Random, drawn: int
    ) -> list[dict[str, Any]]:
        """New candidates within the budgets, each once: drawn at random, and with one to three changes of a parent."""
        found: dict[GenotypeKey, dict[str, Any]] = {}
        for _ in range(drawn):
            self._add(found, self._repair.draw(rng), tried)
        for parent in parents:
            for _ in range(_NEAR):
                child = dict(parent)
                for name in rng.sample(list(child), min(len(child), rng.randint(1, 3))):
                    child[name] = rng.choice(self._repair.choices[name])
                self._add(found, self._repair.repair(child, rng), tried)
        return list(found.values())

    @staticmethod
    def _add(
        found: dict[GenotypeKey, dict[str, Any]], choice: dict[str, Any] | None, tried: Collection[GenotypeKey]
    ) -> None:
        if choice is not None and genotype_key(choice) not in tried:
            found.setdefault(genotype_key(choice), choice)

    def _most_promising(
        self,
        found: Sequence[Genotype],
        scored: Sequence[Genotype],
        accuracies: Array,
        pending: Sequence[Genotype],
        floor: float | None,
    ) -> int:
        """The place of the candidate whose acquisition is the largest."""
        model = _AccuracyModel(self._encode(scored), accuracies, self._encode(pending))
        mean, deviation = model.predict(self._encode(found))
        costs = self._costs(found)
        if floor is not None:
            kept = self._costs(scored)[accuracies >= floor]
            saved = kept.min() - costs if len(kept) else -costs + costs.max()
            gains = np.maximum(saved, 0.0) * norm.cdf((mean - floor) / deviation)
        else:
            # By the model, as the best score of all may be luck.
            within = [choice for choice in scored if self.space.excess(choice) <= 0]
            expected = model.predict(self._encode(within))[0] if within else np.array([accuracies.min()])
            if self.objective == "single":
                gains = _expected_improvement(mean, deviation, expected.max())
            else:
                gains = self._expected_area(mean, deviation, costs, self._costs(within), expected)
        return int(np.argmax(gains if gains.max() > 0 else mean + deviation))

    def _expected_area(self, mean: Array, deviation: Array, costs: Array, known: Array, expected: Array) -> Array:
        """The area between cost and accuracy that each candidate is expected to add to that of the front.

        Over each interval of cost, between neighbours on the front, the gain is its width times the expected
        improvement on the best accuracy to its left.
        """
        end = self.space.limits[0].most if self.space.limits else self.space.most(self.space.measure)
        order = np.argsort(known, kind="stable")
        left = np.concatenate([[-np.inf], known[order]])
        right = np.append(left[1:], end)
        # A hair below the worst, so that even that one is worth something.
        lowest = min(expected.min(initial=np.inf), mean.min()) - 0.1
        levels = np.maximum.accumulate(np.concatenate([[lowest], expected[order]]))
        widths = np.clip(np.minimum(right, end) - np.maximum(left, costs[:, None]), 0.0, None)
        area: Array = (widths * _expected_improvement(mean[:, None], deviation[:, None], levels)).sum(1)
        return area

    def _costs(self, choices: Sequence[Genotype]) -> Array:
        return np.array([self.space.cost(choice, self.space.measure) for choice in choices])

    def _encode(self, choices: Sequence[Genotype]) -> Array:
        """One-hot: (candidates, values of all choices)."""
        return np.array([[float(c[name] == value) for name, value in self._columns] for c in choices]).reshape(
            len(choices), len(self._columns)
        )


class _AccuracyModel:
    """A Gaussian process over standardised accuracies.

    Args:
        features: (candidates, values).
        accuracies: of each, in percent; two different ones at least.
        pending: (candidates, values) of those that are being tried.
    """

    def __init__(self, features: Array, accuracies: Array, pending: Array) -> None:
        self._center, self._scale = float(accuracies.mean()), float(accuracies.std())
        standard = (accuracies - self._center) / self._scale
        linear = ConstantKernel(0.1, (1e-3, 10.0)) * DotProduct(0.0, "fixed")
        smooth = ConstantKernel(0.5, (1e-3, 10.0)) * RBF(2.0, (0.5, 10.0))
        kernel = linear + smooth + WhiteKernel(0.3, (1e-3, 2.0))
        with warnings.catch_warnings():
            # A variance at the end of its range.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = GaussianProcessRegressor(kernel).fit(features[-_FITTED:], standard[-_FITTED:])
        # Without noise: it is the accuracy itself that is looked for.
        self._noise = fitted.kernel_.k2.noise_level
        self._process = GaussianProcessRegressor(fitted.kernel_, optimizer=None).fit(features, standard)
        if len(pending):
            expected = self._process.predict(pending)
            self._process.fit(np.concatenate([features, pending]), np.concatenate([standard, expected]))

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Expected accuracies in percent, and their standard deviations."""
        mean, deviation = self._process.predict(features, return_std=True)
        spread = np.sqrt(np.maximum(deviation**2 - self._noise, 1e-12))
        return self._center + self._scale * mean, self._scale * spread


def _expected_improvement(mean: Array, deviation: Array, best: Array | float) -> Array:
    """The mean of what a normal value is above another one, 0 where it is below."""
    z = (mean - best) / deviation
    improvement: Array = deviation * (z * norm.cdf(z) + norm.pdf(z))
    return improvement
