"""The record of a search: an Optuna study, the one place that tells what was tried and what is being tried."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..space.space import Genotype, GenotypeKey, Space, genotype_key
from ..types import Candidate, State
from .lease import MOST_ATTEMPTS, Lease, put_back
from .progress import progress_of
from .workers import Worker, folder_lock

__all__ = ["TrialStore", "distributions", "genotypes"]

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


class TrialStore:
    """Everything that was tried, in any of the processes that share the study.

    A candidate is claimed, as a running trial, before it is tried, and finished in one transaction. What was running
    when its process died is taken over by another one; what ran when it ended in order, as by Ctrl-C, waits as if it
    had not been begun. Two that lease the same candidate at once settle it by the order of their trials; the later one
    is void.

    Further trainings of finalists are trials, too, with their seed as a user attribute; samplers and pruners don't see
    them.

    Args:
        study: the study, opened from this storage.
        storage: the storage.
        space: the search space.
        worker: this process.
        seed: of the search, and so of the first training of each candidate.
        trained: whether candidates are scored by trainings of their own.

    Attributes:
        trials: one for each candidate, by number.
        repeats: further trainings of finalists.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        space: Space,
        worker: Worker,
        seed: int = 0,
        trained: bool = True,
    ) -> None:
        self.seed, self.trained = seed, trained
        self.study, self.space, self.worker, self._storage = study, space, worker, storage
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._distributions = distributions(space.choices())
        self._finished: dict[int, Candidate] = {}
        self.trials: list[FrozenTrial] = []
        self.repeats: list[FrozenTrial] = []
        self._attrs: dict[str, Any] = {}
        worker.at_end.append(self._leave)
        self.sync()

    def sync(self) -> None:
        """Look what the other processes did."""
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        trials = [trial for trial in trials if "void" not in trial.user_attrs]
        self.trials = [trial for trial in trials if "seed" not in trial.user_attrs]
        self.repeats = [trial for trial in trials if "seed" in trial.user_attrs]
        self._attrs = dict(self._storage.get_study_user_attrs(self._study_id))

    @property
    def finished(self) -> list[FrozenTrial]:
        """Finished trials by number."""
        return [trial for trial in self.trials if trial.state.is_finished()]

    @property
    def running(self) -> list[FrozenTrial]:
        """Trials that somebody runs, or ran when it died, those of finalists among them."""
        return [trial for trial in [*self.trials, *self.repeats] if not trial.state.is_finished()]

    @property
    def base_is_finished(self) -> bool:
        """Whether the base, which is the first trial of all, is finished."""
        return bool(self.trials) and self.trials[0].state.is_finished()

    def keys(self) -> dict[GenotypeKey, int]:
        """The candidates that were tried or are being tried, with their numbers."""
        return {genotype_key(trial.params): number for number, trial in enumerate(self.trials)}

    def repeated(self) -> set[tuple[GenotypeKey, int]]:
        """Which candidates were trained again, or are being, and with which seeds."""
        return {(genotype_key(trial.params), trial.user_attrs["seed"]) for trial in self.repeats}

    def claim(self, choice: Genotype, here: bool = True, seed: int | None = None) -> Lease | None:
        """Lease a candidate; None where another process was quicker, or it was tried before.

        One transaction makes the trial. ``study.ask`` makes an empty one and writes parameter by parameter: a process
        that is killed meanwhile would leave a part of a candidate, and another process would see one without an owner.

        Args:
            choice: the candidate.
            here: whether it runs in this process, whose end may then be its fault.
            seed: of a further training of a finalist; None for a candidate that wasn't scored yet.
        """
        progress = self._progress(choice, seed)
        attrs: dict[str, Any] = {
            "architecture": self.space.architecture(choice).to_json(),
            "owner": self.worker.name,
            "attempts": 1,
            "here": here,
            "progress": list(progress),
        }
        if seed is not None:
            attrs["seed"] = seed
        trial_id = self._storage.create_new_trial(
            self._study_id,
            create_trial(
                state=TrialState.RUNNING,
                params=dict(choice),
                distributions=self._distributions,
                user_attrs=attrs,
                constraints=self.space.constraints(choice),
            ),
        )
        self.sync()
        trials = self.trials if seed is None else [t for t in self.repeats if t.user_attrs["seed"] == seed]
        same = next((trial for trial in trials if trial.params == choice), None)
        if same is not None and same._trial_id != trial_id:
            self.void(trial_id)
            return None
        return Lease(trial_id, dict(choice), 1, time.monotonic(), seed, progress)

    def take_over(self, here: bool = True) -> Lease | None:
        """Take over a candidate whose process died, so that it is run again; None where there is none.

        Args:
            here: whether it runs in this process.
        """
        for trial in self.running:
            lease = self._release(trial, here)
            if lease is None:
                continue
            base = trial.params == self.space.choice() and lease.seed is None
            if lease.attempts <= MOST_ATTEMPTS or base:
                return lease
            ended = trial.user_attrs.get("attempts", 1)
            self.finish(lease, "failed", reason=f"its process ended {ended} times before it got any further")
        return None

    def lease(self, number: int) -> Lease | None:
        """The lease of a candidate that this process tries, or that nobody does; None where another process does."""
        trial = self.trials[number]
        attempts = trial.user_attrs.get("attempts", 1)
        if trial.state == TrialState.RUNNING and trial.user_attrs.get("owner") == self.worker.name:
            return Lease(trial._trial_id, dict(trial.params), attempts, time.monotonic())
        return None if trial.state.is_finished() else self._release(trial, here=True)

    def _release(self, trial: FrozenTrial, here: bool) -> Lease | None:
        """The lease of an unfinished trial whose process ended; None where that is alive or another was quicker."""
        attempts, owner = trial.user_attrs.get("attempts", 1), trial.user_attrs.get("owner", "")
        if trial.state == TrialState.RUNNING and self.worker.is_alive(owner):
            return None
        seed = trial.user_attrs.get("seed")
        progress = self._progress(trial.params, seed)
        if progress > tuple(trial.user_attrs.get("progress", (0, 0))):
            # Whatever ended that process, it doesn't keep the candidate from being finished.
            begun = 1
        else:
            # Elsewhere the end of that process was not the candidate's fault.
            begun = attempts + 1 if trial.user_attrs.get("here", True) else attempts
        taken = {"owner": self.worker.name, "attempts": begun, "here": here, "progress": list(progress)}
        with folder_lock(self.worker.output):
            if not self._take(trial, taken):
                return None
        self.sync()
        passed = trial.user_attrs.get("passed", 0)
        return Lease(trial._trial_id, dict(trial.params), begun, time.monotonic(), seed, progress, passed)

    def _progress(self, choice: Genotype, seed: int | None) -> tuple[int, int]:
        further = None if seed == self.seed else seed
        return progress_of(self.worker.output, self.space.architecture(choice), self.space.img_size(choice), further)

    def got_further(self, lease: Lease) -> bool:
        """Whether the training of a candidate got further since it was leased."""
        return self._progress(lease.choice, lease.seed) > lease.progress

    def _take(self, trial: FrozenTrial, taken: Mapping[str, Any]) -> bool:
        """Take a trial from its dead owner, unless another process was quicker."""
        now = self._storage.get_trial(trial._trial_id)
        if now.state.is_finished() or now.user_attrs.get("owner", "") != trial.user_attrs.get("owner", ""):
            return False
        # Where locks are not kept: of several that see it waiting only one gets it to run.
        if now.state == TrialState.RUNNING:
            self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        if not self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            return False
        for key, value in taken.items():
            self._storage.set_trial_user_attr(trial._trial_id, key, value)
        return True

    def report(self, lease: Lease, epoch: int, accuracy: float) -> None:
        """Note the validation accuracy after an epoch."""
        # One that was taken for dead may have been finished by another process.
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_intermediate_value(lease.trial_id, epoch, accuracy)

    def let_pass(self, lease: Lease, epoch: int) -> None:
        """Note that a candidate was compared after an epoch and went on: it isn't compared there again."""
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(lease.trial_id, "passed", epoch)

    def finish(
        self, lease: Lease, state: State, *, accuracy: float | None = None, params: int = 0, reason: str = ""
    ) -> Candidate:
        """Write what came of a candidate, or of a further training of it.

        Args:
            lease: the candidate.
            state: what became of it.
            accuracy: validation top-1 in percent; None where it failed.
            params: number of parameters.
            reason: why it failed.
        """
        attrs: dict[str, Any] = {"params": params, "seconds": round(time.monotonic() - lease.began, 3)}
        if accuracy is not None:
            attrs["accuracy"] = accuracy
        if reason:
            attrs["reason"] = reason
        states = {name: trial_state for trial_state, name in _STATES.items()}
        values = [accuracy] if state == "complete" and accuracy is not None else None
        # Where it was taken for dead, and another process finished it meanwhile, that one counts.
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(lease.trial_id, "result", attrs)
            number = self._storage.get_trial_number_from_id(lease.trial_id)
            self.study.tell(number, values, states[state], skip_if_finished=True)
        self.sync()
        return next(c for c, trial in zip(self.all(), self.trials, strict=True) if trial.params == lease.choice)

    def hand_back(self, lease: Lease) -> None:
        """Let a candidate be begun again whose worker died, which may be its fault."""
        put_back(self._storage, lease.trial_id, counted=True)
        self.sync()

    def _leave(self) -> None:
        """Let what is still being tried be begun again, uncounted: that this process ends is no fault of its own."""
        self.sync()
        for trial in self.running:
            if trial.state == TrialState.RUNNING and trial.user_attrs.get("owner") == self.worker.name:
                put_back(self._storage, trial._trial_id, counted=False)

    def undo(self, lease: Lease) -> None:
        """Take a candidate back that met what ends the search, as if it had not been begun.

        A trial is void then. The base's is begun anew where others were begun beside it, since the first one is the
        base; alone it leaves an empty study, which takes other settings.
        """
        self.sync()
        if lease.choice == self.space.choice() and len(self.trials) > 1:
            with suppress(UpdateFinishedTrialError):
                self._storage.set_trial_user_attr(lease.trial_id, "attempts", 1)
            put_back(self._storage, lease.trial_id, counted=False)
            self.sync()
        else:
            self.void(lease.trial_id)

    def void(self, trial_id: int) -> None:
        """Take a lease back, as if it had never been."""
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial_id, "void", True)
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        self.sync()

    def all(self) -> list[Candidate]:
        """Every candidate by number, those that run as failed ones without a reason."""
        return [
            self._with_repeats(self._candidate(number, trial), trial.params) for number, trial in enumerate(self.trials)
        ]

    def candidates(self) -> list[Candidate]:
        """Every finished candidate by number."""
        return [c for c, trial in zip(self.all(), self.trials, strict=True) if trial.state.is_finished()]

    def choice_of(self, number: int) -> dict[str, Any]:
        """The choice of a candidate."""
        return dict(self.trials[number].params)

    def notes(self, name: str) -> dict[int, Any]:
        """What else is known of candidates by number: ``test_accuracy``, ``latency``."""
        keys = {number: f"{name} {trial.number}" for number, trial in enumerate(self.trials)}
        return {number: self._attrs[key] for number, key in keys.items() if key in self._attrs}

    def note(self, name: str, number: int, value: Any) -> None:
        """Note a further figure, or something else, of a finished candidate: JSON values."""
        self.set(f"{name} {self.trials[number].number}", value)

    def get(self, key: str) -> Any:
        """What was noted of the study under a key, or None."""
        return self._attrs.get(key)

    def set(self, key: str, value: Any) -> None:
        """Note something of the study as a whole: JSON values."""
        value = json.loads(json.dumps(value))
        self.study.set_user_attr(key, value)
        self._attrs[key] = value

    def _with_repeats(self, candidate: Candidate, choice: Genotype) -> Candidate:
        """The candidate with what came of its further trainings."""
        repeats = [t for t in self.repeats if t.params == choice and t.state.is_finished()]
        if not repeats or candidate.state != "complete":
            return candidate
        by_seed = {t.user_attrs["seed"]: t.values[0] for t in repeats if t.state == TrialState.COMPLETE}
        if by_seed and self.trained and candidate.accuracy is not None:
            by_seed[self.seed] = candidate.accuracy
        failed = [
            f"with seed {t.user_attrs['seed']}: {t.user_attrs.get('result', {}).get('reason', '')}"
            for t in repeats
            if t.state != TrialState.COMPLETE
        ]
        return dataclasses.replace(candidate, by_seed=dict(sorted(by_seed.items())), reason="; ".join(failed))

    def _candidate(self, number: int, trial: FrozenTrial) -> Candidate:
        kept = self._finished.get(trial.number)
        if kept is not None and kept.number == number:
            return kept
        choice: Mapping[str, Any] = trial.params
        architecture = self.space.architecture(choice)
        result = trial.user_attrs.get("result", {})
        finished = trial.state.is_finished()
        candidate = Candidate(
            number=number,
            pools=architecture.pools,
            drops=architecture.drops,
            macs=self.space.macs(choice),
            # Of one that was stopped early, or not tried yet, they are counted.
            params=result.get("params") or int(self.space.cost(choice, "params")),
            accuracy=result.get("accuracy"),
            state=_STATES.get(trial.state, "failed"),
            reason=result.get("reason", ""),
            seconds=result.get("seconds", 0.0),
            within_budget=self.space.excess(choice) <= 0,
            latency=self.space.cost(choice, "latency") if "latency" in self.space.base_costs else None,
            settings={name: choice[name] for name in self.space.settings},
        )
        if finished:
            self._finished[trial.number] = candidate
        return candidate


def distributions(choices: Mapping[str, tuple[Any, ...]]) -> dict[str, BaseDistribution]:
    """The choices as Optuna's distributions."""
    return {name: CategoricalDistribution(allowed) for name, allowed in choices.items()}


def genotypes(study: optuna.Study, choices: Mapping[str, Any]) -> list[FrozenTrial]:
    """The first trials of the candidates of a study that have a whole genotype and count, in their order.

    Args:
        study: the study.
        choices: what the space lets choose, by name.
    """
    trials = study.get_trials(deepcopy=False)
    return [
        trial
        for trial in trials
        if not {"void", "seed"} & trial.user_attrs.keys() and trial.params.keys() >= choices.keys()
    ]
