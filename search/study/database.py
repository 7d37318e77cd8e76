"""Where a study is kept: a SQLite file in the output folder, or any storage that Optuna opens by its address."""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from cp_vision.shared.errors import UserError, one_line

from ..config.addresses import absolute_address, file_of, hide_password, hide_password_in_address
from ..config.paths import whole_path
from ..config.schema import CONFIG_FILE

__all__ = ["STUDY_FILE", "StudyDatabase"]

STUDY_FILE = "study.db"
_STUDY_NAME = "cp-search"
_SETTINGS = "settings"


class StudyDatabase:
    """Where the study of an output folder is kept.

    Args:
        folder: output folder of the search.
        storage: address: None is ``study.db`` in the folder; ``journal:PATH`` is Optuna's journal file; anything else
            is a database as SQLAlchemy writes it (``postgresql://...``), where the study has the folder's name.
    """

    def __init__(self, folder: Path, storage: str | None) -> None:
        self.folder, self.address = folder, None if storage is None else absolute_address(storage)
        self.name = _STUDY_NAME if storage is None else folder.resolve().name

    def check(self, settings: dict[str, Any]) -> None:
        """Raise a UserError unless a search of these settings may write here.

        Writes nothing, but that Optuna makes its tables in the database of a server.

        Args:
            settings: everything that a result depends on.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"output {str(self.folder)!r} is a file; choose another --output")
        held = self.held()
        others = self._others(held is not None)
        if others:
            raise UserError(f"output {str(self.folder)!r} holds other files ({others[0]}); choose another --output")
        if held is None:
            return
        attrs, trials = held
        if _SETTINGS not in attrs:
            raise UserError(f"{self} is no study of cp-search; choose another --output")
        wanted, there = json.loads(json.dumps(settings)), attrs[_SETTINGS]
        for key in sorted({*there, *wanted}):
            # A study whose base could not be trained holds nothing; it takes new settings.
            if trials and _absolute(key, there.get(key)) != _absolute(key, wanted.get(key)):
                raise UserError(
                    f"{self.folder} holds another study: {key} is {json.dumps(there.get(key))} there, not "
                    f"{json.dumps(wanted.get(key))}; choose another --output"
                )

    def _others(self, begun: bool) -> list[str]:
        """Names of files in the folder that are no search's, or another one's: a search deletes what it doesn't know.

        Args:
            begun: whether the study is there.
        """
        config, own = self.folder / CONFIG_FILE, self._path()
        if begun and (self.address is None or config.exists()):
            return []
        with suppress(OSError, ValueError, KeyError, TypeError):
            theirs = json.loads(config.read_text())["storage"]
            # Begun here, in a database that was emptied since.
            if isinstance(theirs, str) and absolute_address(theirs) == self.address:
                return []
        names = sorted(path.name for path in self.folder.glob("*") if not path.name.startswith("."))
        # SQLite's own beside it begin with its name.
        inside = own is not None and own.resolve().parent == self.folder.resolve()
        return [name for name in names if own is None or not inside or not name.startswith(own.name)]

    def held(self) -> tuple[dict[str, Any], int] | None:
        """What is known of the study there: its attributes and the number of trials that count; None where is none."""
        path = self._path()
        if path is not None and not path.exists():
            # Optuna would make it.
            if self.address is not None and not path.parent.is_dir():
                raise UserError(f"storage {str(self)!r} can't be opened: there is no folder {str(path.parent)!r}")
            return None
        if self.address is None:
            return self._held_by_file()
        try:
            study = optuna.load_study(storage=self.open(), study_name=self.name)
        except KeyError:
            return None
        trials = [trial for trial in study.get_trials(deepcopy=False) if "void" not in trial.user_attrs]
        return dict(study.user_attrs), len(trials)

    def load(self, settings: dict[str, Any], more: dict[str, Any]) -> tuple[optuna.Study, BaseStorage]:
        """Open the study, or make it where there is none; it comes with its storage.

        Args:
            settings: everything that a result depends on.
            more: further attributes that a new study gets.
        """
        path = self.folder / STUDY_FILE
        if self.address is None and not path.exists():
            # Under a temporary name first, so that one cut short is never taken for a study.
            unfinished = path.with_name(f".{path.name}.unfinished")
            unfinished.unlink(missing_ok=True)
            new = _sqlite(unfinished)
            _create(new, self.name, {**more, _SETTINGS: settings})
            new.remove_session()
            new.engine.dispose()
            os.replace(unfinished, path)
        storage = optuna.storages.get_storage(self.open())
        try:
            study = optuna.load_study(storage=storage, study_name=self.name)
        except KeyError:
            study = _create(storage, self.name, {**more, _SETTINGS: settings})
        held = self.held()
        if held is not None and not held[1]:
            for key, value in {**more, _SETTINGS: settings}.items():
                study.set_user_attr(key, value)
        return study, storage

    def open(self) -> BaseStorage:
        """Open the storage.

        Raises:
            UserError: an address that Optuna can't open.
        """
        try:
            if self.address is None:
                return _sqlite(self.folder / STUDY_FILE)
            if self.address.startswith("journal:"):
                return JournalStorage(JournalFileBackend(str(self._path())))
            options = {"connect_args": {"timeout": 60}} if self.address.startswith("sqlite") else None
            return RDBStorage(self.address, engine_kwargs=options)
        except ImportError as error:
            # Optuna's own message doesn't say which driver.
            raise UserError(
                f"storage {str(self)!r} can't be opened: {self._told(error.__cause__ or error)}; install the "
                "database's driver with pip"
            ) from error
        except (OSError, ValueError, OptunaError) as error:
            raise UserError(f"storage {str(self)!r} can't be opened: {self._told(error)}") from error
        except Exception as error:
            # Whatever a driver of a database raises.
            raise UserError(
                f"storage {str(self)!r} can't be opened: {type(error).__name__}: {self._told(error)}"
            ) from error

    def _told(self, error: BaseException) -> str:
        """An error in one line, without the password."""
        return hide_password(one_line(error).replace(self.address or str(self), str(self)))[:200]

    def _path(self) -> Path | None:
        """The file that the address names; None where it is a server's."""
        return self.folder / STUDY_FILE if self.address is None else file_of(self.address)

    def _held_by_file(self) -> tuple[dict[str, Any], int] | None:
        path = self.folder / STUDY_FILE
        try:
            # Not through Optuna, which makes its tables in any database that it opens. Writable, since SQLite has
            # to roll back what a killed process left half-written.
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=60)) as database:
                rows = database.execute(
                    "SELECT study_name, key, value_json FROM studies JOIN study_user_attributes USING (study_id)"
                ).fetchall()
                trials = database.execute(
                    "SELECT COUNT(*) FROM trials WHERE trial_id NOT IN "
                    "(SELECT trial_id FROM trial_user_attributes WHERE key = 'void')"
                ).fetchone()[0]
        except sqlite3.Error as error:
            raise UserError(f"{path} is no study of cp-search ({error}); choose another --output") from error
        return {key: json.loads(text) for name, key, text in rows if name == _STUDY_NAME}, trials

    def __str__(self) -> str:
        return str(self.folder / STUDY_FILE) if self.address is None else hide_password_in_address(self.address)


def _absolute(key: str, value: Any) -> Any:
    """A setting, as a whole path where it names a file: searches begun earlier have them as they were typed."""
    return whole_path(key.removeprefix("recipe value "), value)


def _sqlite(path: Path) -> RDBStorage:
    # Several processes write to one file in turn.
    return RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": 60}})


def _create(storage: BaseStorage, name: str, attrs: dict[str, Any]) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(["validation accuracy"])
    for key, value in attrs.items():
        study.set_user_attr(key, value)
    return study


optuna.logging.set_verbosity(optuna.logging.WARNING)
