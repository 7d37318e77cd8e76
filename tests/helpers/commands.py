"""A console command as a process of its own that starts in a moment, which can be interrupted and killed.

What takes seconds to import is imported once, in a server that every such process is a fork of. A test of what a
command imports, or of an installed one, starts the command itself.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SERVER", "Done", "Running", "run", "start"]

MAINS = {
    "cp-models": "cp_vision.commands.cp_models_command",
    "cp-search": "cp_vision.search.cli.main",
    "cp-train": "cp_vision.recipes.cli",
}

# The one server of a test process: multiprocessing has but one list of what it imports. Not Ray, which a search imports
# in an environment of its own.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["cp_vision.recipes.run.training_run", "cp_vision.recipes.progress", "cp_vision.search.runner"]
)


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (minus the signal that killed it) and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class Running:
    """A command that was started."""

    def __init__(self, words: list[str], cwd: Path | None, environment: dict[str, str] | None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        variables = {**os.environ, **(environment or {})}
        given = (words[0], words[1:], str(cwd or Path.cwd()), variables, self._folder.name)
        # Not a daemon, as these may have no loading workers.
        self.process: Any = SERVER.Process(target=_command, args=given)
        self.process.start()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to it, as Ctrl-C does SIGINT."""
        os.kill(self.process.pid, number)

    def wait(self, seconds: float | None = None) -> Done | None:
        """Wait for its end; None where it has not ended after so many seconds."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            return None
        out, err = ((Path(self._folder.name) / name).read_text() for name in ("out", "err"))
        return Done(self.process.exitcode, out, err)


def start(words: list[str], cwd: Path | None = None, environment: dict[str, str] | None = None) -> Running:
    """Start a console command.

    Args:
        words: its name, such as ``cp-search``, and its arguments.
        cwd: the folder that it starts in; by default this process's.
        environment: variables that it has beside this process's.
    """
    return Running(words, cwd, environment)


def run(words: list[str], cwd: Path | None = None, environment: dict[str, str] | None = None) -> Done:
    """Run a console command to its end; arguments as of ``start``."""
    done = start(words, cwd, environment).wait()
    assert done is not None
    return done


def _command(name: str, arguments: list[str], cwd: str, environment: dict[str, str], folder: str) -> None:
    # Loading workers are forks, as in a process that was started by itself: they end where this one is killed.
    multiprocessing.set_start_method(None, force=True)
    # A fork has the environment, the folder and the streams that the server began with.
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for stream, path in ((1, "out"), (2, "err")):
        with open(os.path.join(folder, path), "wb") as file:
            os.dup2(file.fileno(), stream)
    # Tests that a shell runs in the background inherit that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [name, *arguments]
    code = importlib.import_module(MAINS[name]).main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
