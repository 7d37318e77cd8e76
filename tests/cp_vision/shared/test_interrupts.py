"""Ctrl-C ends a command wherever it comes."""

import signal

import pytest

from cp_vision.shared.command_line import run_command
from cp_vision.shared.interrupts import check_interrupt


class Finalised:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_an_object_is_finalised(capsys):
    steps = []

    def command(arguments):
        check_interrupt()
        del arguments[0]
        steps.append("Python dropped it")
        check_interrupt()
        steps.append("went on")

    assert run_command(command, [Finalised()], "cp-search") == 130
    assert steps == ["Python dropped it"]
    assert "cp-search: stopped" in capsys.readouterr().err
    assert run_command(lambda arguments: check_interrupt(), [], "cp-search") == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
