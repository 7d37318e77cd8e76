"""What other packages warn of while a command checks its arguments."""

import logging
import warnings

import pytest

from cp_vision.shared.held_back import held_back


def speak(name):
    for _ in range(2):
        logging.getLogger("somebody.else").warning("%s of a log", name)
        logging.getLogger("somebody.else").info("nothing")
    warnings.warn(f"{name} of a warning", UserWarning, stacklevel=2)


def speak_and_fail(name):
    speak(name)
    raise ValueError(name)


def test_it_is_told_once_at_the_end(capsys, monkeypatch):
    with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as told:
        # Without pytest's handler, as on a command line.
        patched.setattr(logging.root, "handlers", [])
        with held_back():
            speak("a line")
            assert capsys.readouterr().err == ""
            assert not told
        assert capsys.readouterr().err == "a line of a log\n"
        assert [str(one.message) for one in told] == ["a line of a warning"]
        speak("another")
        assert capsys.readouterr().err == "another of a log\n" * 2
        assert len(told) == 2


def test_after_an_error_it_is_not(capsys, monkeypatch):
    with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as told:
        patched.setattr(logging.root, "handlers", [])
        with pytest.raises(ValueError, match="a line"), held_back():
            speak_and_fail("a line")
    assert capsys.readouterr().err == ""
    assert not told
