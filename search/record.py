"""The record of a search: an Optuna study in a SQLite file, the one place that tells what was tried."""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from cp_vision.errors import UserError
from cp_vision.files import check_path

from .proposals import distributions, key_of
from .results import Candidate
from .space import Choice, Space

__all__ = ["STUDY_FILE", "Record", "check_output"]

STUDY_FILE = "study.db"
_STUDY_NAME = "cp-search"


class Record:
    """Finished trials by candidate, each written in one transaction when it is finished.

    What was running when a process was killed is not in the record, and is run again.

    Args:
        folder: output folder, which exists; the study is made there or opened.
        settings: everything that a result depends on; :func:`check_output` was asked about them.
        space: the search space.
        budget: the budget in MACs.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], space: Space, budget: int) -> None:
        self.space, self.budget = space, budget
        self._distributions = distributions(space.choices(budget))
        path = folder / STUDY_FILE
        if not path.exists():
            _make_study(path, settings)
        self.study = optuna.load_study(storage=_open(path), study_name=_STUDY_NAME)
        if not self.study.get_trials(deepcopy=False):
            self.study.set_user_attr("settings", settings)
        self._trials = {key_of(trial.params): trial for trial in self.study.get_trials()}

    def find(self, choice: Choice) -> Candidate | None:
        """The finished candidate of a choice, or None."""
        trial = self._trials.get(key_of(choice))
        return None if trial is None else self._candidate(trial)

    def add(
        self, choice: Choice, *, accuracy: float | None, params: int, seconds: float, reason: str = ""
    ) -> Candidate:
        """Write a finished candidate.

        Args:
            choice: what was trained.
            accuracy: validation top-1 in percent; None where it failed.
            params: number of parameters.
            seconds: wall time.
            reason: why it failed.
        """
        attrs: dict[str, Any] = {
            "architecture": self.space.architecture(choice).to_json(),
            "params": params,
            "seconds": round(seconds, 3),
        }
        if reason:
            attrs["reason"] = reason
        self.study.add_trial(
            create_trial(
                state=TrialState.FAIL if accuracy is None else TrialState.COMPLETE,
                values=None if accuracy is None else [accuracy, self.space.macs(choice)],
                params=dict(choice),
                distributions=self._distributions,
                user_attrs=attrs,
                constraints={"macs": self.space.excess(choice, self.budget)},
            )
        )
        trial = self.study.get_trials(deepcopy=False)[-1]
        self._trials[key_of(choice)] = trial
        return self._candidate(trial)

    def candidates(self) -> list[Candidate]:
        """Every finished candidate by number."""
        return sorted((self._candidate(t) for t in self._trials.values()), key=lambda c: c.number)

    @property
    def test_accuracy(self) -> dict[int, float]:
        """Test top-1 in percent by candidate number, where it was measured."""
        return {int(number): value for number, value in self.study.user_attrs.get("test_accuracy", {}).items()}

    def set_test_accuracy(self, number: int, accuracy: float) -> None:
        """Write the test accuracy of a candidate."""
        self.study.set_user_attr("test_accuracy", {**self.test_accuracy, number: accuracy})

    def _candidate(self, trial: FrozenTrial) -> Candidate:
        architecture = self.space.architecture(trial.params)
        complete = trial.state == TrialState.COMPLETE
        return Candidate(
            number=trial.number,
            pools=architecture.pools,
            drops=architecture.drops,
            macs=self.space.macs(trial.params),
            params=trial.user_attrs["params"],
            accuracy=trial.values[0] if complete else None,
            state="complete" if complete else "failed",
            reason=trial.user_attrs.get("reason", ""),
            seconds=trial.user_attrs["seconds"],
        )


def check_output(folder: Path, settings: dict[str, Any]) -> None:
    """Raise a UserError unless a search of these settings may write to this folder. Writes nothing.

    Args:
        folder: output folder, which need not exist.
        settings: as for :class:`Record`.
    """
    check_path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output {str(folder)!r} is a file; choose another --output")
    path = folder / STUDY_FILE
    if not path.exists():
        others = [p.name for p in folder.glob("*") if not p.name.startswith(".")] if folder.exists() else []
        if others:
            raise UserError(f"output {str(folder)!r} holds other files ({others[0]}); choose another --output")
        return
    try:
        # Not through Optuna, which makes its tables in any database that it opens. Writable, since SQLite has
        # to roll back what a killed process left half-written.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as database:
            rows = database.execute(
                "SELECT study_name, key, value_json FROM studies JOIN study_user_attributes USING (study_id)"
            ).fetchall()
            trials = database.execute("SELECT COUNT(*) FROM trials").fetchone()[0]
    except sqlite3.Error as error:
        raise UserError(f"{path} is no study of cp-search ({error}); choose another --output") from error
    held = next((json.loads(text) for name, key, text in rows if (name, key) == (_STUDY_NAME, "settings")), None)
    if held is None:
        raise UserError(f"{path} is no study of cp-search; choose another --output")
    wanted = json.loads(json.dumps(settings))
    for key in sorted({*held, *wanted}):
        # A study whose base could not be trained holds nothing; it takes new settings.
        if trials and held.get(key) != wanted.get(key):
            raise UserError(
                f"{folder} holds another study: {key} is {json.dumps(held.get(key))} there, not "
                f"{json.dumps(wanted.get(key))}; choose another --output"
            )


def _make_study(path: Path, settings: dict[str, Any]) -> None:
    """Make an empty study under a temporary name first, so that one cut short is never taken for a study."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    storage = _open(unfinished)
    study = optuna.create_study(storage=storage, study_name=_STUDY_NAME, directions=["maximize", "minimize"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(["validation accuracy", "MACs"])
    study.set_user_attr("settings", settings)
    storage.remove_session()
    storage.engine.dispose()
    os.replace(unfinished, path)


def _open(path: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
