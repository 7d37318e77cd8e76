"""What is written is there whole, whoever else writes it."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from full_disk import no_file_above

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.files import needs_room, whole_file, whole_folder, write_text


def test_a_text_that_several_write_at_once_is_always_whole(tmp_path):
    path = tmp_path / "table.csv"
    texts = [letter * 200_000 for letter in "ab"]
    write_text(path, texts[0])

    def write(text):
        for _ in range(200):
            write_text(path, text)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, text) for text in texts]
        while not all(writer.done() for writer in writers):
            assert path.read_text() in texts
        for writer in writers:
            writer.result()
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"]


def test_a_file_or_folder_that_cannot_be_written_leaves_what_was_there(tmp_path):
    for fill, old in (
        (lambda: whole_file(tmp_path / "a"), tmp_path / "a"),
        (lambda: whole_folder(tmp_path / "b"), tmp_path / "b" / "c"),
    ):
        for text, limit in (("before", 100), ("a" * 1000, 100), ("after", 100)):
            expected = pytest.raises(CommandError, match="File too large") if len(text) > limit else nullcontext()
            with no_file_above(limit), expected, needs_room(tmp_path), fill() as unfinished:
                (unfinished / "c" if unfinished.is_dir() else unfinished).write_text(text)
            assert old.read_text() == ("before" if len(text) > limit else text)
            assert {path.name for path in tmp_path.iterdir()} <= {"a", "b"}


def test_what_is_no_want_of_room_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), needs_room(tmp_path):
        (tmp_path / "a" / "b").write_text("")
