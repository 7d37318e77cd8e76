"""Ending the training of candidates early that are among the worse of their cost, by an Optuna pruner."""

from __future__ import annotations

import bisect
import copy
import itertools
import math
import zlib

import optuna
from optuna import Study
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial

from ..space.space import Space, genotype_key
from ..study.lease import Lease
from ..study.trials import TrialStore, genotypes

__all__ = ["COMPARABLE", "SHORT", "HalvingPruner", "Pruner", "first_rung", "is_rung", "make_pruner", "pruner_name"]

FACTOR = 3
SHORT = 30
"""Epochs of a training below which candidates are trained to their end unless a pruner is named: a ninth of a short
training tells little of its end."""
COMPARABLE = 0.1
"""Candidates are compared whose costs differ by no more than this share of the base's."""


def pruner_name(name: str | None, epochs: int) -> str:
    """The pruner of trainings of so many epochs: the one that was named, or ``halving`` where they aren't short."""
    return name or ("none" if epochs < SHORT else "halving")


def first_rung(epochs: int) -> int:
    """After how many epochs candidates are compared first: a ninth of all."""
    return max(1, math.ceil(epochs / FACTOR**2))


def is_rung(name: str | None, epoch: int, epochs: int) -> bool:
    """Whether candidates are compared after this epoch, so that their accuracy is wanted."""
    name = pruner_name(name, epochs)
    if name == "none" or epoch == epochs:
        return False
    if name == "median":
        return epoch >= first_rung(epochs)
    return epoch in {first_rung(epochs) * FACTOR**k for k in range(epochs.bit_length())}


def make_pruner(name: str, epochs: int) -> BasePruner:
    """The pruner of a name (``halving``, ``hyperband``, ``median``, ``none``) for trainings of so many epochs."""
    first = first_rung(epochs)
    if name == "halving":
        return HalvingPruner(first)
    if name == "hyperband":
        return HalvingPruner(first, brackets=int(math.log(epochs / first, FACTOR) + 1e-9) + 1)
    return MedianPruner(n_warmup_steps=first - 1) if name == "median" else NopPruner()


class HalvingPruner(BasePruner):
    """Asynchronous successive halving: at each rung the best third goes on; with brackets, Hyperband.

    Optuna's own notes in a trial which rungs it passed, and counts these notes. A candidate that is begun again after
    its process died finds them and isn't compared again. This one looks at the reported accuracies alone, so a search
    that was killed stops what it would have stopped.

    Args:
        first: epochs to the first rung; the next is after :data:`FACTOR` times as many.
        brackets: groups in which candidates are compared, the second without the first rung and so on.

    Source: Li et al., 2018, arXiv 1810.05934; with brackets Li et al., 2016, arXiv 1603.06560, sized as in Optuna.
    """

    def __init__(self, first: int, brackets: int = 1) -> None:
        self.first = first
        sizes = [math.ceil(brackets * FACTOR**s / (s + 1)) for s in reversed(range(brackets))]
        self._ends = list(itertools.accumulate(sizes))

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial's last accuracy is below the best third of those at the same epoch, its own among them."""
        epoch, bracket = trial.last_step, self._bracket(trial)
        if epoch is None or epoch < self.first * FACTOR**bracket:
            return False
        own = trial.intermediate_values[epoch]
        values = [own]
        for other in genotypes(study, trial.params):
            if other.params != trial.params and epoch in other.intermediate_values and self._bracket(other) == bracket:
                values.append(other.intermediate_values[epoch])
        return own < sorted(values, reverse=True)[max(len(values) // FACTOR - 1, 0)]

    def _bracket(self, trial: FrozenTrial) -> int:
        """By what the candidate is: the same in every process."""
        return bisect.bisect(self._ends, zlib.crc32(repr(genotype_key(trial.params)).encode()) % self._ends[-1])


class Pruner:
    """Decides after an epoch whether a candidate goes on, in every process and under Ray by the same rule.

    The base alone is never stopped. Any other candidate is compared with those of about its cost, whether they pool or
    not: a model of twice the size may learn more slowly or end higher, which says nothing of where it pools.

    Args:
        name: ``halving``, ``hyperband``, ``median`` or ``none``; None leaves it to :func:`pruner_name`.
        store: the trials.
    """

    def __init__(self, name: str | None, store: TrialStore) -> None:
        self.name, self.store = name, store

    def stops(self, lease: Lease, epoch: int, accuracy: float, epochs: int) -> bool:
        """Report an accuracy, and tell whether the candidate is not worth more training."""
        self.store.report(lease, epoch, accuracy)
        space, study = self.store.space, self.store.study
        if lease.choice == space.choice():
            return False
        trials = genotypes(study, lease.choice)
        trial = copy.copy(next(trial for trial in trials if trial._trial_id == lease.trial_id))
        # An attempt that died may have gone further.
        trial.intermediate_values = {step: value for step, value in trial.intermediate_values.items() if step <= epoch}
        pruner = make_pruner(pruner_name(self.name, epochs), epochs)
        return pruner.prune(_comparable(trials, trial, space), trial)


def _comparable(trials: list[FrozenTrial], trial: FrozenTrial, space: Space) -> Study:
    """A study in memory of the other trials that cost about as much."""
    own, most = space.cost(trial.params, space.measure), COMPARABLE * space.base_costs[space.measure]
    view = optuna.create_study(direction="maximize")
    for other in trials:
        if other.number != trial.number and abs(space.cost(other.params, space.measure) - own) <= most:
            view.add_trial(other)
    return view
