"""Where a study is kept: addresses, names, and what is said where it can't be read or written."""

import shutil
import sqlite3
import subprocess
from pathlib import Path

import optuna
import pytest
from fake_evaluator import FakeEvaluator
from mistakes import assert_one_line_mistake
from slow_cases import slow_unless

from cp_vision.search import Search, SearchConfig
from cp_vision.search.cli.main import main
from cp_vision.search.config.addresses import absolute_address, file_of, is_in_memory, optuna_address, sqlite_address
from cp_vision.search.study import database
from cp_vision.search.study.database import StudyDatabase
from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError


def config(output, **changes):
    return SearchConfig(**{"base": "test_vit2", "output": str(output), "trials": 2, **changes})


def search(output, **changes):
    return Search(config(output, **changes)).run(evaluator=FakeEvaluator())


ODD = ["a%20b", "a%2Fb", "a?b", "a{b}", "{SCHEMA_VERSION}", "a'b", "a#b", "a@b:c", "ünï 中", "a&b;c", "100%"]


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """What a study holds of its search."""
    return Search(config(tmp_path_factory.mktemp("contents") / "x")).contents()


@pytest.mark.parametrize("kept", ["in the folder", "by its address"])
@pytest.mark.parametrize("name", ODD)
def test_a_study_may_lie_under_any_name(name, kept, contents, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    place = StudyDatabase(folder, None if kept == "in the folder" else sqlite_address(folder / f"{name}.db"))
    study, _, held = place.load(contents)
    study.set_user_attr("mark", name)
    assert [path.name for path in folder.iterdir()] == ["study.db" if kept == "in the folder" else f"{name}.db"]
    assert not list(held.differences(contents))
    # Nothing lies beside the folder, and it goes on.
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert place.held()[0]["mark"] == place.open_study()[0].user_attrs["mark"] == name


@pytest.mark.parametrize("kept", ["in the folder", "by its address"])
def test_a_search_may_write_into_a_folder_of_any_name(kept, tmp_path):
    # All that may be in a name at once.
    name = "".join(ODD)
    output, other = tmp_path / name, tmp_path / "other"
    other.mkdir()
    file = output / "study.db" if kept == "in the folder" else other / f"{name}.db"
    address = None if kept == "in the folder" else sqlite_address(file)
    first = search(output, storage=address)
    assert file.is_file()
    # Nothing lies beside the folder, and it goes on.
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "other"])
    assert len(list(other.iterdir())) == (0 if address is None else 1)
    assert search(output, storage=address).candidates == first.candidates
    assert main(["status", str(output)]) == 0


@pytest.mark.parametrize(
    ("address", "file", "absolute"),
    [
        ("sqlite:///s.db", "s.db", "sqlite:///{}/s.db"),
        ("sqlite+pysqlite:///s.db?timeout=9", "s.db", "sqlite+pysqlite:///{}/s.db?timeout=9"),
        ("sqlite:////data/s.db", "/data/s.db", "sqlite:////data/s.db"),
        ("sqlite:///a%20b.db", "a b.db", "sqlite:///{}/a b.db"),
        ("journal:s.log", "s.log", "journal:{}/s.log"),
        ("journal://s.log", "s.log", "journal:{}/s.log"),
        ("postgresql://me@host/db", None, "postgresql://me@host/db"),
        ("no address", None, "no address"),
    ],
)
def test_an_address_names_the_same_file_from_any_folder(address, file, absolute, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert file_of(address) == (None if file is None else Path(file))
    assert absolute_address(address) == absolute.format(tmp_path)
    assert file is None or file_of(absolute_address(address)) == Path(file).absolute()
    assert optuna_address(address).format(SCHEMA_VERSION="1") == address


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=memory"])
def test_a_study_in_memory_is_refused(address, tmp_path, capsys):
    assert is_in_memory(address)
    words = ["test_vit2", "--storage", address, "--output", str(tmp_path / "x")]
    assert_one_line_mistake(main, words, capsys, [address])
    assert not list(tmp_path.iterdir())


def test_names_of_studies(tmp_path):
    address = f"sqlite:///{tmp_path / 'shared.db'}"
    one, two = (StudyDatabase(tmp_path / user / "pets", address).name for user in ("anna", "bert"))
    assert one != two
    assert one.startswith("pets-")
    # From everywhere the same folder is the same study, and a name that is given counts.
    assert StudyDatabase(tmp_path / "bert" / ".." / "anna" / "pets", address).name == one
    assert StudyDatabase(tmp_path / "anna" / "pets", address, "ours").name == "ours"
    first = search(tmp_path / "one", storage=address, study="ours")
    assert search(tmp_path / "two", storage=address, study="ours").candidates == first.candidates
    assert optuna.get_all_study_names(address) == ["ours"]
    # It is kept in the folder, wherever that is moved to.
    shutil.move(tmp_path / "one", tmp_path / "moved")
    assert StudyDatabase(tmp_path / "moved", address).name == "ours"


def test_a_locked_database_is_no_foreign_one(tmp_path, monkeypatch):
    search(tmp_path)
    monkeypatch.setattr(database, "_PATIENCE", 0.1)
    with sqlite3.connect(tmp_path / "study.db", isolation_level=None) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        before = (tmp_path / "study.db").read_bytes()
        with pytest.raises(CommandError, match="locked") as caught:
            Search(config(tmp_path))
        assert "\n" not in str(caught.value)
        assert "another --output" not in str(caught.value)
        with pytest.raises(CommandError, match="locked"), StudyDatabase(tmp_path, None).errors():
            StudyDatabase(tmp_path, None).open().get_all_studies()[0]
        lock.execute("ROLLBACK")
    assert (tmp_path / "study.db").read_bytes() == before
    assert main(["status", str(tmp_path)]) == 0


# A whole file system takes the right to mount one.
MAY_MOUNT = shutil.which("mount") is not None and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0


@pytest.mark.skipif(not MAY_MOUNT, reason="needs the right to mount a file system")
@pytest.mark.parametrize("size", slow_unless({"40k"}, ["40k", "150k"]))
def test_a_full_disk_at_the_beginning_is_one_line_with_its_cause(size, tmp_path, capfd):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", tmp_path], check=True)
    try:
        code = main(
            ["test_vit2", "--trials", "2", "--seeds", "1", "--set", "epochs=1", "--output", str(tmp_path / "x")]
        )
        err = capfd.readouterr().err
        assert code == 1
        (line,) = [line for line in err.splitlines() if line.startswith("cp-search: error: ")]
        # The words of SQLite, or of the system where it is another file.
        assert "full" in line or "No space left" in line
        assert "Traceback" not in err
        assert not list((tmp_path / "x").glob(".study*"))
    finally:
        # SQLite's file may be open still.
        subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.skipif(not MAY_MOUNT, reason="needs the right to mount a file system")
def test_a_disk_that_fills_up_later_is_one_line_and_the_search_goes_on(tmp_path):
    output = tmp_path / "x"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], check=True)
    try:
        search(output)
        page = (output / "report.html").read_bytes()
        with pytest.raises(OSError, match="No space"):
            (tmp_path / "others").write_bytes(bytes(2**22))
        with pytest.raises(CommandError, match=f"{output}.*No space left on device"):
            search(output, trials=3)
        assert (output / "report.html").read_bytes() == page
        assert not list(output.glob(".*unfinished"))
        (tmp_path / "others").unlink()
        assert len(search(output, trials=3).candidates) >= 3
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.parametrize("text", ["", "not a database" * 100])
def test_another_file_in_its_place_is_left_alone(text, tmp_path):
    (tmp_path / "study.db").write_text(text)
    with pytest.raises(UserError):
        Search(config(tmp_path))
    assert (tmp_path / "study.db").read_text() == text
