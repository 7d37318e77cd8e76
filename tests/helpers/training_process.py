"""cp-train in processes of its own, which can be killed, or train together."""

import io
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cp_vision.recipes import cli
from cp_vision.recipes.run import training_run
from cp_vision.recipes.training import trainer

# Its processes have what takes seconds to import already.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["training_process", "cp_vision.recipes.progress"])


def start(target: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """Start a function of a module in a process, with more in its environment; torch takes one thread."""
    process = _SERVER.Process(target=_called, args=(environment, target, arguments))
    process.start()
    return process


def start_together(count: int, target: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Start a function as torchrun does, in several processes that find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    return [start(target, rank, *arguments, **meeting, RANK=str(rank)) for rank in range(count)]


def _called(environment: dict[str, str], target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    target(*arguments)


def train_in(rank: int, folders: list[Path], arguments: list[str]) -> None:
    """Run cp-train in a folder of its own; what it prints goes to a file there."""
    os.chdir(folders[rank])
    output = os.open("printed", os.O_CREAT | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.exit(cli.main(arguments))


def train_until(moment: str, number: int, name: str, arguments: list[str]) -> None:
    """Run cp-train until a moment comes for the given time, when it is killed.

    Args:
        moment: ``update``, ``model`` (a model is to be saved), ``writing`` (half of a checkpoint is written) or
            ``renaming`` (a file of that name is to be put in its place).
        number: which time.
        name: how the path of the file ends.
        arguments: of cp-train.
    """
    rename = os.replace

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(state: Any, file: Any) -> None:
        # The first half of what would have been written.
        whole = io.BytesIO()
        torch.serialization.save(state, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        die()

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith(name):
            die()
        rename(source, target)

    def before(owner: Any, attribute: str, action: Callable[..., None]) -> None:
        real, calls = getattr(owner, attribute), iter(range(1, 1_000_000))

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == number:
                action(*args, **kwargs)
            return real(*args, **kwargs)

        setattr(owner, attribute, wrapped)

    if moment == "update":
        before(trainer.Trainer, "_update", die)
    elif moment == "model":
        before(training_run, "save_model", die)
    elif moment == "writing":
        before(torch, "save", half)
    else:
        os.replace = replace
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.exit(cli.main(arguments))
