"""What the project's commands share: one-line errors and exit codes."""

from __future__ import annotations

import argparse
import ast
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError, one_line
from .interrupts import noted_interrupts

__all__ = ["CommandError", "CommandParser", "default_output", "parse_pairs", "run_command"]


class CommandError(RuntimeError):
    """A command can't go on, for a reason that is no mistake of the user's; the message is one line.

    Attributes:
        told_elsewhere: whether another process of the same command prints it.
    """

    told_elsewhere = False


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print the error alone, without the usage, and exit."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def run_command(command: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None, name: str) -> int:
    """Run a command.

    Args:
        command: the command; takes its arguments, None for those of the process.
        arguments: its arguments.
        name: its name, for errors.

    Returns:
        The exit code: 0, 1 where the command failed, 2 for a mistake of the user's, 130 after Ctrl-C; what was
        stopped by another signal says its own.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold what no terminal can show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with noted_interrupts():
            command(arguments)
            sys.stdout.flush()
    except (UserError, CommandError) as error:
        if not error.told_elsewhere:
            print(f"{name}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except BrokenPipeError:
        # Whoever reads the output (head) has seen enough; nothing may be written when Python exits either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = "" if error.filename is None else f": {error.filename}"
        print(f"{name}: error: {error.strerror or one_line(error)}{place}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        more = f"; {stop}" if str(stop) else ""
        print(f"{name}: stopped{more}", file=sys.stderr)
        return int(getattr(stop, "code", 130))
    return 0


def default_output(name: str, data_dir: str | Path | None) -> str:
    """The folder that a command writes where none is named: it says what is done, and on which data."""
    data = "" if data_dir is None else Path(data_dir).expanduser().resolve().name
    return f"runs/{name}-{data}" if data else f"runs/{name}"


def parse_pairs(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Read ``key=value`` texts, the value as a Python literal or else as text, like timm's ``--model-kwargs``.

    Raises:
        UserError: a text without ``=``.
    """
    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"{option} {text!r} must be key=value, for example {option} patch_size=4")
        try:
            pairs[key] = ast.literal_eval(value)
        except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
            pairs[key] = value
    return pairs
