"""Reference problems for samplers: spaces whose best candidate within the budget is known, and scored in no time.

In the manner of BoTorch's test functions (https://botorch.readthedocs.io/en/stable/test_functions.html) and of Syne
Tune's black boxes (Salinas et al., AutoML-Conf 2022, *Syne Tune: a library for large-scale hyperparameter tuning and
reproducible research*). Three of them:

- ``digits``: every candidate of a small vision transformer was trained (``search_table.csv``);
- ``deit_small``: 12 blocks, each kept, pooled after (but for the last) or left out; 354,294 choices;
- ``resnet50``: 16 blocks, and strided pools in place of the stem's and of the down-samplings; 4,478,976 choices.

Costs are those of the models themselves. The accuracies of the latter two are made up, see :class:`Synthetic`: each
seed draws another network. The optimum is exact in all: every choice is looked at.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_table import context
from cp_vision import Architecture
from cp_vision.search import measure_space, parse_budgets
from cp_vision.search.config.space_options import SpaceOptions
from cp_vision.search.space.space import DROP, KEEP, POOL, Space
from cp_vision.search.types import Measure

__all__ = ["PROBLEMS", "Problem", "Synthetic", "Tabulated"]

Array = NDArray[np.float64]

TABLE = Path(__file__).parent / "results" / "search_table.csv"


class Tabulated:
    """A space all of whose candidates were trained once; these accuracies count as the truth.

    Args:
        space: the space, with its budget.
        table: accuracy in percent by the values of all sites.

    Attributes:
        optimum: the best accuracy within the budget, in percent.
    """

    def __init__(self, space: Space, table: Mapping[tuple[str, ...], float]) -> None:
        self.space, self.table = space, table
        choices = [dict(zip(space.names, values, strict=True)) for values in table]
        self.optimum = max(self.accuracy(choice) for choice in choices if space.excess(choice) <= 0)

    def accuracy(self, choice: Mapping[str, Any]) -> float:
        """True accuracy of a choice in percent; KeyError where the table lacks it."""
        return self.table[tuple(choice[name] for name in self.space.names)]


class Synthetic:
    """A network whose accuracy is made up: what its changes cost, in pairs too, and more the more is changed.

    With x in {0, 1} for each site and change (pooled, left out), all accuracies in percent points,

        v = sum_i s_i x_i + sum_ij p_ij x_i x_j,    accuracy = base - v - max(v, 0)^2 / 12.

    Drawn for each seed:

    - a block left out costs ``loss`` times a log-normal value (sigma 0.5), at either end of the network twice that;
    - a pool gains 0.1 on average (sigma 0.25): at some sites it helps, at others it does harm;
    - neighbours that are both left out cost 0.3 on average beyond their own; a pool before a block that is left out
      makes up for 0.2; two pools gain less than their sum, by 0.15 where they are neighbours;
    - any two changes interact by a little (sigma 0.05).

    Args:
        space: the space, with its budgets and without settings.
        order: its sites by depth.
        seed: of the coefficients.
        base: accuracy of the base.
        loss: what a typical block costs.

    Attributes:
        optimum: the best accuracy within the budgets.
    """

    def __init__(self, space: Space, order: Sequence[str], seed: int, base: float, loss: float) -> None:
        self.space, self.order, self.base = space, tuple(order), base
        rng, sites = np.random.default_rng(seed), len(self.order)
        drop = loss * rng.lognormal(0.0, 0.5, sites) * (1 + np.linspace(-1, 1, sites) ** 4)
        pool = -rng.normal(0.1, 0.25, sites)
        # Columns 2i are the pools, 2i + 1 the drops.
        self.single = np.stack([pool, drop], 1).ravel()
        self.pairs = rng.normal(0.0, 0.05, (2 * sites, 2 * sites))
        for i, j in itertools.combinations(range(sites), 2):
            self.pairs[2 * i, 2 * j] += rng.exponential(0.15) * np.exp((1 + i - j) / 2)
            if j == i + 1:
                self.pairs[2 * i + 1, 2 * j + 1] += rng.exponential(0.3)
                self.pairs[2 * i, 2 * j + 1] -= rng.exponential(0.2)
        # Each pair once, and none within a site.
        site = np.arange(2 * sites) // 2
        self.pairs[site[:, None] >= site] = 0.0

    def accuracy(self, choice: Mapping[str, Any]) -> float:
        """True accuracy of a choice in percent."""
        x = _changes([[choice[name] for name in self.order]])
        return float(self._accuracy(self._deficit(x))[0])

    @functools.cached_property
    def optimum(self) -> float:
        """By looking at every choice, as pairs of two halves of the sites: v and cost are sums over both."""
        allowed, middle = self.space.choices(), len(self.order) // 2
        first, second = (
            list(itertools.product(*(allowed[name] for name in half)))
            for half in (self.order[:middle], self.order[middle:])
        )
        kept_first, kept_second = (KEEP,) * middle, (KEEP,) * (len(self.order) - middle)
        x = _changes([values + kept_second for values in first])
        y = _changes([kept_first + values for values in second])
        accuracy = self._accuracy(self._deficit(x)[:, None] + self._deficit(y) + x @ self.pairs @ y.T)
        for limit in self.space.limits:
            one = self._costs([values + kept_second for values in first], limit.measure)
            two = self._costs([kept_first + values for values in second], limit.measure)
            accuracy[one[:, None] + two - self.space.base_costs[limit.measure] > limit.most] = -np.inf
        if self.space.by_token:
            # What pools after the last block that stays is another choice under another name.
            last_first, last_second = ([_last(values) for values in half] for half in (first, second))
            for i, a in enumerate(last_first):
                accuracy[i, [(b or a) in (None, POOL) for b in last_second]] = -np.inf
        return float(accuracy.max())

    def _deficit(self, x: Array) -> Array:
        found: Array = x @ self.single + ((x @ self.pairs) * x).sum(1)
        return found

    def _accuracy(self, deficit: Array) -> Array:
        return self.base - deficit - np.maximum(deficit, 0.0) ** 2 / 12

    def _costs(self, choices: Sequence[Sequence[str]], measure: Measure) -> Array:
        return np.array([self.space.cost(dict(zip(self.order, c, strict=True)), measure) for c in choices])


def _changes(choices: Sequence[Sequence[str]]) -> Array:
    """(choices, 2 x sites): 1 where a site is pooled, and where it is left out."""
    values = np.array(choices)
    return np.stack([values == POOL, values == DROP], 2).reshape(len(values), -1).astype(float)


def _last(values: Sequence[str]) -> str | None:
    """What becomes of the last site that stays."""
    return next((value for value in reversed(values) if value != DROP), None)


@functools.lru_cache(maxsize=1)
def digits(budget: str, seed: int) -> Tabulated:
    """The table; it is the same for all seeds."""
    with TABLE.open() as file, tempfile.TemporaryDirectory() as folder:
        table = {tuple(row["choice"].split()): float(row["accuracy"]) for row in csv.DictReader(file)}
        space = context(folder).space
    return Tabulated(dataclasses.replace(space, limits=parse_budgets(budget, space.base_costs)), table)


@functools.lru_cache(maxsize=1)
def deit_small(budget: str, seed: int) -> Synthetic:
    """DeiT-S at 224 pixels: 12 blocks."""
    space = _space("deit_small_patch16_224", None)
    space = dataclasses.replace(space, limits=parse_budgets(budget, space.base_costs))
    return Synthetic(space, space.names, seed, base=79.9, loss=0.8)


@functools.lru_cache(maxsize=1)
def resnet50(budget: str, seed: int) -> Synthetic:
    """ResNet-50 at 224 pixels: 16 blocks, pools in its last two stages, in its stem and its down-samplings."""
    space = _space("resnet50", SpaceOptions(pools=("maxpool", "*downsample", "layer3*", "layer4*")))
    space = dataclasses.replace(space, limits=parse_budgets(budget, space.base_costs))
    # By name they are in the order of their depth, but for the stem.
    order = sorted(space.names, key=lambda name: (name != "maxpool", name))
    return Synthetic(space, order, seed, base=78.0, loss=0.5)


def _space(base: str, options: SpaceOptions | None) -> Space:
    return measure_space(Architecture(base), (3, 224, 224), options)


Problem = Tabulated | Synthetic
PROBLEMS: dict[str, Callable[[str, int], Problem]] = {"digits": digits, "deit_small": deit_small, "resnet50": resnet50}
"""Makes a problem of a budget and a seed."""
