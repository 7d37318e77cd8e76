"""Ending the training of candidates early that are among the worse: Optuna's pruners over all candidates."""

from __future__ import annotations

import math

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState

from ..space.space import POOL, Genotype, Space
from ..study.lease import Lease
from ..study.trials import TrialStore

__all__ = ["Pruner", "first_rung", "is_rung"]

FACTOR = 3


def first_rung(epochs: int) -> int:
    """After how many epochs candidates are compared first: a ninth of all."""
    return max(1, math.ceil(epochs / FACTOR**2))


def is_rung(name: str, epoch: int, epochs: int) -> bool:
    """Whether candidates are compared after this epoch, so that their accuracy is wanted."""
    if name == "none" or epoch == epochs:
        return False
    if name == "median":
        return epoch >= first_rung(epochs)
    return epoch in {first_rung(epochs) * FACTOR**k for k in range(epochs.bit_length())}


def _pruner(name: str, epochs: int) -> BasePruner:
    if name == "halving":
        # Li et al., 2018, arXiv 1810.05934.
        return SuccessiveHalvingPruner(min_resource=first_rung(epochs), reduction_factor=FACTOR)
    if name == "hyperband":
        # Li et al., 2016, arXiv 1603.06560.
        return HyperbandPruner(min_resource=first_rung(epochs), max_resource=epochs, reduction_factor=FACTOR)
    return MedianPruner(n_warmup_steps=first_rung(epochs) - 1)


class Pruner:
    """Decides after an epoch whether a candidate goes on.

    Optuna's pruners take studies of one objective, so they look at one in memory that has the accuracies of all
    candidates after their epochs. What sets the scale is trained to its end: the base, and those that only drop.

    Args:
        name: ``halving``, ``hyperband``, ``median`` or ``none``.
        record: where the accuracies of the other candidates are.
    """

    def __init__(self, name: str, record: TrialStore) -> None:
        self.name, self.record = name, record
        self._study: optuna.Study | None = None
        self._open: dict[int, Trial] = {}
        self._seen: set[int] = set()

    def stops(self, lease: Lease, epoch: int, accuracy: float, epochs: int) -> bool:
        """Note an accuracy, and tell whether the candidate is not worth more training."""
        self.record.report(lease, epoch, accuracy)
        self.record.sync()
        study = self._followed(epochs)
        trial = self._open.get(lease.trial_id)
        if trial is None:
            trial = self._open[lease.trial_id] = study.ask()
        trial.report(accuracy, epoch)
        # Asked at every rung, since successive halving takes note of them.
        return trial.should_prune() and not _is_baseline(self.record.space, lease.choice)

    def _followed(self, epochs: int) -> optuna.Study:
        """The study in memory, with what is new in the record."""
        if self._study is None:
            # Hyperband chooses by the study's name, which would be another one in each process.
            self._study = optuna.create_study(
                study_name="stopping", direction="maximize", pruner=_pruner(self.name, epochs)
            )
        for other in self.record.finished:
            if other.number in self._seen:
                continue
            self._seen.add(other.number)
            trial = self._open.pop(other._trial_id, None)
            if trial is None:
                trial = self._study.ask()
                for step, value in sorted(other.intermediate_values.items()):
                    trial.report(value, step)
                    trial.should_prune()
            accuracy = other.user_attrs["result"].get("accuracy")
            if other.state == TrialState.COMPLETE and accuracy is not None:
                self._study.tell(trial, accuracy)
            else:
                self._study.tell(trial, state=TrialState.FAIL)
        return self._study


def _is_baseline(space: Space, choice: Genotype) -> bool:
    return POOL not in (choice[name] for name in space.names)
