"""Where a study is kept: a SQLite file in the output folder, or any storage that Optuna opens by its address."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line

from ..config.addresses import (
    absolute_address,
    file_of,
    hide_password,
    hide_password_in_address,
    is_in_memory,
    optuna_address,
    sqlite_address,
)
from ..config.schema import CONFIG_FILE
from .contents import StudyContents

__all__ = ["STUDY_FILE", "StudyDatabase"]

STUDY_FILE = "study.db"
_STUDY_NAME = "cp-search"
# Folders that a search writes.
_FOLDERS = ("best", "front", "weights")
# What SQLite says of a file that is no database, or has other tables; all else may pass.
_FOREIGN = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class StudyDatabase:
    """Where the study of an output folder is kept.

    Args:
        folder: output folder of the search.
        storage: address: None is ``study.db`` in the folder; ``journal:PATH`` is Optuna's journal file; anything else
            is a database as SQLAlchemy writes it (``postgresql://...``).
        study: name of the study in that storage. None is the one that ``search.json`` in the folder names, or else
            one that is made of the folder's whole path and the user: the same on all machines where both are the same.

    Attributes:
        name: of the study.

    Raises:
        UserError: an address in memory.
    """

    def __init__(self, folder: Path, storage: str | None, study: str | None = None) -> None:
        self.folder, self.address = folder, None if storage is None else absolute_address(storage)
        if storage is not None and is_in_memory(storage):
            raise UserError(
                f"storage {storage!r} is in memory and ends with this process; name a file, such as "
                "sqlite:///studies.db, or leave it out"
            )
        self.name = _STUDY_NAME if storage is None else study or self._noted() or _made_name(folder)

    def check(self, wanted: StudyContents) -> None:
        """Raise a UserError unless this search may write here.

        Writes nothing, but that Optuna makes its tables in the database of a server.

        Args:
            wanted: the search.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"output {str(self.folder)!r} is a file; choose another --output")
        held = self.held()
        others = self._others(held is not None)
        if others and self.is_gone():
            raise UserError(f"{self.gone()}; move it away, or choose another --output")
        if others:
            raise UserError(f"output {str(self.folder)!r} holds other files ({others[0]}); choose another --output")
        for name in _FOLDERS:
            path = self.folder / name
            if path.exists() and not path.is_dir():
                raise UserError(f"{str(path)!r} is a file where the search writes a folder; move it away")
        # A study whose base could not be trained holds nothing; it takes new settings.
        if held is None or ("settings" in held[0] and not held[1]):
            return
        for name, there, here in StudyContents.from_attrs(held[0], str(self)).differences(wanted):
            raise UserError(
                f"{self.folder} holds another study: {name} is {json.dumps(there)} there, not {json.dumps(here)}; "
                "choose another output folder"
            )

    def is_gone(self) -> bool:
        """Whether a search was begun in the folder, and the study that it kept there is no more."""
        files = {path: (self.folder / path).exists() for path in (CONFIG_FILE, STUDY_FILE)}
        return self.address is None and files[CONFIG_FILE] and not files[STUDY_FILE]

    def gone(self) -> str:
        """What is to be said of a study that is no more."""
        return f"{str(self.folder)!r} held a search, whose {STUDY_FILE} is gone, so it can't be shown or gone on with"

    def _noted(self) -> str | None:
        """The name of the study that ``search.json`` in the folder says, where it says the same storage."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            noted = json.loads((self.folder / CONFIG_FILE).read_text(encoding="utf-8"))
            if isinstance(noted["storage"], str) and absolute_address(noted["storage"]) == self.address:
                # Versions that did not note it took the folder's.
                return str(noted.get("study") or self.folder.resolve().name)
        return None

    def _others(self, begun: bool) -> list[str]:
        """Names of files in the folder that are no search's, or another one's: a search deletes what it doesn't know.

        Args:
            begun: whether the study is there.
        """
        own = self._path()
        if begun and (self.address is None or (self.folder / CONFIG_FILE).exists()):
            return []
        # Begun here, in a database that was emptied since.
        if self.address is not None and self._noted() is not None:
            return []
        names = sorted(path.name for path in self.folder.glob("*") if not path.name.startswith("."))
        # SQLite's own beside it begin with its name.
        inside = own is not None and own.resolve().parent == self.folder.resolve()
        return [name for name in names if own is None or not inside or not name.startswith(own.name)]

    def held(self) -> tuple[dict[str, Any], int] | None:
        """What is known of the study there: its attributes and the number of trials that count; None where is none.

        Raises:
            UserError: another database, or none that can be opened.
            CommandError: it can't be read at the moment.
        """
        path = self._path()
        if path is not None and not path.exists():
            # Optuna would make it.
            if self.address is not None and not path.parent.is_dir():
                raise UserError(f"storage {str(self)!r} can't be opened: there is no folder {str(path.parent)!r}")
            return None
        if self.address is None:
            return self._held_by_file()
        with self.errors():
            try:
                study = optuna.load_study(storage=self.open(), study_name=self.name)
            except KeyError:
                return None
            trials = [trial for trial in study.get_trials(deepcopy=False) if "void" not in trial.user_attrs]
            return dict(study.user_attrs), len(trials)

    def contents(self) -> StudyContents | None:
        """What the study holds of its search; None where there is none, or one without a single trial.

        Raises:
            UserError: as :meth:`held`; it was made by a version that kept less.
        """
        held = self.held()
        return StudyContents.from_attrs(held[0], str(self)) if held is not None and held[1] else None

    def load(self, wanted: StudyContents) -> tuple[optuna.Study, BaseStorage, StudyContents]:
        """Open the study, or make it where there is none.

        Args:
            wanted: the search.

        Returns:
            The study, its storage, and the search as it is held: another process may have made it meanwhile.

        Raises:
            UserError: it is that of another search.
            CommandError: it can't be written.
        """
        self.check(wanted)
        path, attrs = self.folder / STUDY_FILE, wanted.to_attrs()
        with self.errors():
            if self.address is None and not path.exists():
                # Under a temporary name first, so that one cut short is never taken for a study.
                unfinished = path.with_name(f".{path.name}.unfinished")
                unfinished.unlink(missing_ok=True)
                try:
                    new = _rdb(sqlite_address(unfinished), is_new=True)
                    _create(new, self.name, attrs)
                    new.remove_session()
                    new.engine.dispose()
                    os.replace(unfinished, path)
                finally:
                    unfinished.unlink(missing_ok=True)
            study, storage = self.open_study()
            if study is None:
                study = _create(storage, self.name, attrs)
            held = self.held()
            if held is not None and not held[1] and not _is_same(held[0], wanted):
                for key, value in attrs.items():
                    study.set_user_attr(key, value)
            return study, storage, StudyContents.from_attrs(study.user_attrs, str(self))

    def open_study(self) -> tuple[optuna.Study | None, BaseStorage]:
        """Open the study, None where there is none, and its storage."""
        with self.errors():
            storage = optuna.storages.get_storage(self.open())
            try:
                return optuna.load_study(storage=storage, study_name=self.name), storage
            except KeyError:
                return None, storage

    def open(self) -> BaseStorage:
        """Open the storage.

        Raises:
            UserError: an address that Optuna can't open.
        """
        if self.address is None:
            return _rdb(sqlite_address(self.folder / STUDY_FILE))
        try:
            if self.address.startswith("journal:"):
                return JournalStorage(JournalFileBackend(str(self._path())))
            return _rdb(optuna_address(self.address))
        except ImportError as error:
            # Optuna's own message doesn't say which driver.
            raise UserError(
                f"storage {str(self)!r} can't be opened: {self._told(error.__cause__ or error)}; install the "
                "database's driver with pip"
            ) from error
        except Exception as error:
            # Whatever a driver of a database raises.
            raise UserError(f"storage {str(self)!r} can't be opened: {self._told(_cause(error))}") from error

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Say in one line why the study can't be read or written: the database's own words.

        Raises:
            CommandError: in place of what Optuna and SQLAlchemy raise.
        """
        try:
            yield
        except (OptunaError, SQLAlchemyError) as error:
            raise CommandError(
                f"the study {self} can't be read or written: {self._told(_cause(error))}; once that is repaired the "
                "same command goes on"
            ) from error

    def _told(self, error: BaseException) -> str:
        """What an error says, without the password that a driver may have put into it."""
        return hide_password(one_line(error).replace(self.address or str(self), str(self)))[:200]

    def _path(self) -> Path | None:
        """The file that the address names; None where it is a server's."""
        return self.folder / STUDY_FILE if self.address is None else file_of(self.address)

    def _held_by_file(self) -> tuple[dict[str, Any], int] | None:
        path = self.folder / STUDY_FILE
        try:
            # Not through Optuna, which makes its tables in any database that it opens. Writable, since SQLite has
            # to roll back what a killed process left half-written.
            with closing(
                sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=_PATIENCE)
            ) as database:
                rows = database.execute(
                    "SELECT study_name, key, value_json FROM studies JOIN study_user_attributes USING (study_id)"
                ).fetchall()
                trials = database.execute(
                    "SELECT COUNT(*) FROM trials WHERE trial_id NOT IN "
                    "(SELECT trial_id FROM trial_user_attributes WHERE key = 'void')"
                ).fetchone()[0]
        except sqlite3.Error as error:
            # The last byte is the kind of the error, what is before it says more of it.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _FOREIGN:
                raise UserError(f"{path} is no study of cp-search ({error}); choose another output folder") from error
            raise CommandError(
                f"the study {path} can't be read: {error}; another program may hold it, so try again"
            ) from error
        return {key: json.loads(text) for name, key, text in rows if name == _STUDY_NAME}, trials

    def __str__(self) -> str:
        return str(self.folder / STUDY_FILE) if self.address is None else hide_password_in_address(self.address)


_PATIENCE = 60
"""Seconds that a process waits for others to write to a SQLite file."""


def _made_name(folder: Path) -> str:
    """A name for the study of a folder that is another one for other users and other folders of that name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # In a container a user may have no name.
        user = str(os.getuid())
    whole = folder.resolve()
    return f"{whole.name}-{hashlib.sha256(f'{user}:{whole}'.encode()).hexdigest()[:8]}"


def _is_same(attrs: Mapping[str, Any], wanted: StudyContents) -> bool:
    """Whether a study without trials was made, a moment ago, for the same search."""
    with suppress(UserError):
        return not any(StudyContents.from_attrs(attrs, "").differences(wanted))
    return False


def _cause(error: BaseException) -> BaseException:
    """What the database itself said: Optuna and SQLAlchemy wrap it in words of their own."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    return error


def _rdb(address: str, is_new: bool = False) -> RDBStorage:
    # Several processes write to one file in turn.
    options = {"connect_args": {"timeout": _PATIENCE}} if address.startswith("sqlite") else None
    # Optuna reads all its earlier schemas to compare; tables that it makes now have none of these.
    return RDBStorage(address, engine_kwargs=options, skip_compatibility_check=is_new)


def _create(storage: BaseStorage, name: str, attrs: dict[str, Any]) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(["validation accuracy"])
    for key, value in attrs.items():
        study.set_user_attr(key, value)
    return study


optuna.logging.set_verbosity(optuna.logging.WARNING)
