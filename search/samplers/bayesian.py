"""The default sampler: Bayesian optimisation with a Gaussian process for accuracy and costs that are known."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from ..space.repair import BudgetRepair
from ..space.space import DROP, KEEP, Genotype, GenotypeKey, Space, genotype_key
from ..study.trials import genotypes
from .budget import seed_of
from .optuna import accuracy_floor
from .stopped import expected_accuracy

__all__ = ["BayesianSampler"]

Array = NDArray[np.float64]
Acquisition = Callable[[Sequence[Genotype]], Array]

# Scored candidates before the model is asked, and candidates of which the most expensive is then taken.
_AT_RANDOM, _GUESSES = 6, 5
# The acquisition is looked at for candidates drawn at random and, round by round, for those near the best.
_DRAWN, _ROUNDS, _PARENTS, _NEAR = 50, 4, 5, 25
# Length scales and noise (of standardised accuracies) to choose among. The variance grows with the square of the
# length, so that the differences between near candidates don't.
_LENGTHS, _NOISES = (1.5, 2.0, 3.0, 4.5), (1e-3, 0.03, 0.2)
_GRID = tuple((0.5 * length**2, length, noise) for length in _LENGTHS for noise in _NOISES)
# They are fitted to so many candidates at most, since a fit takes time that grows with their cube.
_FITTED = 256


class BayesianSampler(BaseSampler):
    """Proposes the candidate within the budgets of which most is expected.

    A Gaussian process (smooth over one-hot changes of the base, with noise; its hyper-parameters are fitted) predicts
    accuracy; what a candidate costs is known. The acquisition, whose maximum is looked for by a local search, is

    - with ``keep_accuracy``: what is saved, times the probability that the accuracy is kept;
    - ``single``: the expected improvement on the best;
    - ``pareto``: the expected improvement of the area under the front of cost and accuracy.

    Candidates that were stopped early count by :func:`expected_accuracy`, those that others are trying as if they came
    out as expected, and those that failed not at all. It keeps nothing between proposals: the study and the seed
    decide.

    Args:
        space: the space, with its budgets.
        seed: seed of what is drawn.
        objective: ``single`` or ``pareto``.
        keep_accuracy: how many points below the base's accuracy are allowed; None for no such bound.

    Source: Jones et al., *Efficient global optimization of expensive black-box functions*, 1998 (expected
    improvement); Emmerich et al., *Single- and multiobjective evolutionary optimization assisted by Gaussian random
    field metamodels*, 2006 (of the area; with one known objective it is a sum of expected improvements); Gardner et
    al., *Bayesian optimization with inequality constraints*, ICML 2014 (times the probability).
    """

    def __init__(self, space: Space, seed: int, objective: str = "single", keep_accuracy: float | None = None) -> None:
        self.space, self.seed, self.objective, self.keep_accuracy = space, seed, objective, keep_accuracy
        self._repair = BudgetRepair(space)
        # A site that is kept is no change: candidates that change little are near each other.
        self._columns = [(n, value) for n, values in self._repair.choices.items() for value in values if value != KEEP]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing by itself: it is asked for a whole genotype; see :class:`BudgetSampler`."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole genotype within the budgets, new if one was found among those that were looked at."""
        trials = genotypes(study, self._repair.choices)
        rng = random.Random(seed_of(self.seed, len(trials)))
        tried = {genotype_key(other.params) for other in trials}
        scored = [
            (other.params, accuracy)
            for other in trials
            if (accuracy := other.value if other.state == TrialState.COMPLETE else expected_accuracy(other, trials))
            is not None
        ]
        choices, accuracies = [choice for choice, _ in scored], np.array([accuracy for _, accuracy in scored])
        if len(scored) < _AT_RANDOM or np.ptp(accuracies) == 0:
            return self._guess(tried, rng)
        pending = [other.params for other in trials if not other.state.is_finished()]
        model = _AccuracyModel(self._encode(choices), accuracies, self._encode(pending))
        acquisition = self._acquisition(
            model, choices, accuracies, accuracy_floor(trials, self.space, self.keep_accuracy)
        )
        best = np.argsort(-model.predict(self._encode(choices))[0], kind="stable")
        return self._search(acquisition, [choices[i] for i in best[:_PARENTS]], tried, rng)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Not there: what it proposes is a whole genotype."""
        raise ValueError(f"{param_name!r} is not of this space")

    def _guess(self, tried: Collection[GenotypeKey], rng: random.Random) -> dict[str, Any]:
        """A new candidate at random; near the budget, where accuracy within it is all that counts."""
        drawn = [self._repair.draw(rng) for _ in range(_GUESSES)]
        found = [choice for choice in drawn if choice is not None and genotype_key(choice) not in tried]
        if not found:
            return self._repair.draw(rng) or self.space.choice()
        near = self.objective == "single" and self.keep_accuracy is None
        return found[int(self._costs(found).argmax())] if near else found[0]

    def _search(
        self, acquisition: Acquisition, parents: list[Genotype], tried: Collection[GenotypeKey], rng: random.Random
    ) -> dict[str, Any]:
        """The new candidate of the largest acquisition that is found."""
        gains: dict[GenotypeKey, float] = {}
        known: dict[GenotypeKey, dict[str, Any]] = {}
        candidates = [choice for choice in (self._repair.draw(rng) for _ in range(_DRAWN)) if choice is not None]
        for _ in range(_ROUNDS):
            candidates += [child for parent in parents for child in self._neighbours(parent, rng)]
            new = {genotype_key(choice): choice for choice in candidates}
            new = {key: choice for key, choice in new.items() if key not in tried and key not in known}
            if new:
                gains |= zip(new, acquisition(list(new.values())), strict=True)
                known |= new
            best = heapq.nlargest(_PARENTS, gains, key=gains.__getitem__)
            parents, candidates = [known[key] for key in best], []
        # Where all that was found was tried, :class:`BudgetSampler` changes what comes of this.
        return known[best[0]] if known else self._repair.draw(rng) or self.space.choice()

    def _neighbours(self, parent: Genotype, rng: random.Random) -> Iterator[dict[str, Any]]:
        """Candidates within the budgets: what becomes of two sites exchanged, or one to three changes, or both."""
        names, choices = self.space.names, self._repair.choices
        for _ in range(_NEAR):
            child, kind = dict(parent), rng.randrange(3)
            if kind and len(names) > 1:
                one, other = rng.sample(names, 2)
                if child[one] in choices[other] and child[other] in choices[one]:
                    child[one], child[other] = child[other], child[one]
            if kind != 1:
                for name in rng.sample(list(child), min(len(child), rng.randint(1, 3))):
                    child[name] = rng.choice(choices[name])
            if self.space.excess(child) <= 0:
                yield self.space.normal(child)

    def _acquisition(
        self, model: _AccuracyModel, scored: Sequence[Genotype], accuracies: Array, floor: float | None
    ) -> Acquisition:
        """What is expected of candidates, by the model."""
        within = [choice for choice in scored if self.space.excess(choice) <= 0]
        known = self._costs(within)
        # By the model, as the best score of all may be luck.
        expected = model.predict(self._encode(within))[0] if within else np.array([accuracies.min()])
        kept = self._costs(scored)[accuracies >= floor] if floor is not None else known
        bound = kept.min() if len(kept) else self.space.most(self.space.measure)

        def gains(choices: Sequence[Genotype]) -> Array:
            mean, deviation = model.predict(self._encode(choices))
            if floor is not None:
                found = np.maximum(bound - self._costs(choices), 0.0) * norm.cdf((mean - floor) / deviation)
            elif self.objective == "single":
                found = _expected_improvement(mean, deviation, expected.max())
            else:
                found = self._expected_area(mean, deviation, self._costs(choices), known, expected)
            # The last part decides where no gain is left.
            total: Array = found + 1e-6 * (mean + deviation)
            return total

        return gains

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
        """(candidates, changes): 1 for each change of the base; 0.5 where two neighbours are both left out."""
        names = self.space.names
        rows = [
            [float(c[name] == value) for name, value in self._columns]
            + [0.5 * (c[one] == c[next_one] == DROP) for one, next_one in itertools.pairwise(names)]
            for c in choices
        ]
        return np.array(rows).reshape(len(choices), len(self._columns) + len(names) - 1)


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
        kernel = ConstantKernel() * RBF() + WhiteKernel()
        fitted = GaussianProcessRegressor(kernel, optimizer=_of_grid).fit(features[-_FITTED:], standard[-_FITTED:])
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


def _of_grid(loss: Callable[..., float], start: Array, bounds: Array) -> tuple[Array, float]:
    """The likeliest hyper-parameters of the grid, as scikit-learn asks for them: logarithms, and the loss there."""
    losses = [loss(np.log(values), eval_gradient=False) for values in _GRID]
    return np.log(_GRID[int(np.argmin(losses))]), min(losses)
