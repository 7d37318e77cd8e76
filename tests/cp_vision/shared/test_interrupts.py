"""Ctrl-C and SIGTERM end a command wherever they come."""

import signal

import pytest

from cp_vision.shared.command_line import run_command
from cp_vision.shared.interrupts import check_interrupt


class Finalised:
    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_an_object_is_finalised(number, code, capsys):
    # Ray, in a test before, may have told the process otherwise.
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    steps = []

    def command(arguments):
        check_interrupt()
        del arguments[0]
        steps.append("Python dropped it")
        check_interrupt()
        steps.append("went on")

    assert run_command(command, [Finalised(number)], "cp-search") == code
    assert steps == ["Python dropped it"]
    assert "cp-search: stopped" in capsys.readouterr().err
    assert run_command(lambda arguments: check_interrupt(), [], "cp-search") == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_DFL


def test_a_signal_that_others_make_an_error_of(capsys):
    def command(arguments):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("Error calling function") from None

    assert run_command(command, [], "cp-search") == 130
    assert capsys.readouterr().err == "cp-search: stopped\n"
