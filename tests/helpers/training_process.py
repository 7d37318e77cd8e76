"""cp-train in processes of its own, which can be killed, or train together."""

import io
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import torch
from commands import SERVER

from cp_vision.recipes import cli
from cp_vision.recipes.run import training_run
from cp_vision.recipes.training import trainer


def start(target: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """Start a function of a module in a process, with more in its environment; torch takes one thread."""
    process = SERVER.Process(target=_called, args=(environment, target, arguments))
    process.start()
    return process


def meeting(count: int) -> list[dict[str, str]]:
    """The environments of processes that find each other, as torchrun makes them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    return [{**shared, "RANK": str(rank)} for rank in range(count)]


def _called(environment: dict[str, str], target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    # Loading workers are forks, as in a process that was started by itself.
    multiprocessing.set_start_method(None, force=True)
    torch.set_num_threads(1)
    target(*arguments)


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
