"""The processes of a training: one, or as many as torchrun started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from timm.utils.distributed import init_distributed_device_so
from torch import Tensor, distributed

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError

__all__ = ["Processes", "joined_processes", "single_process"]


T = TypeVar("T")

# The first reading of a large data set from a slow disk takes hours; that a process died, its closed connection tells.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process among those of a training.

    Attributes:
        device: where this process computes.
        rank: its number, from 0.
        count: how many there are.
        group: in which they wait for what one of them tells; None is torch's own, which soon gives up waiting.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    group: Any = None

    @property
    def primary(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a value over all processes.

        Args:
            value: on this process's device, of one shape in all; changed in place where there are several processes.
        """
        if self.count > 1:
            distributed.all_reduce(value)
            value /= self.count
        return value

    def any(self, table: Tensor) -> Tensor:
        """Element-wise "or" of a table of booleans over all processes; of one shape in all, on any device."""
        if self.count > 1:
            flags = table.to(self.device, torch.uint8)
            distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
            table = flags.bool().to(table.device)
        return table

    def told(self, function: Callable[[], T]) -> T:
        """What a function gives on the primary process, in all of them, be it an error.

        Args:
            function: called on the primary process alone; what it gives can be pickled.

        Raises:
            UserError: raised by the function, in all processes.
            CommandError: as well.
        """
        told: list[Any] = [None, None]
        if self.primary:
            try:
                told[0] = function()
            except (CommandError, UserError) as error:
                told[1] = error
        if self.count > 1:
            distributed.broadcast_object_list(told, group=self.group)
        self._raise_told(told[1])
        found: T = told[0]
        return found

    def in_turn(self, function: Callable[[], T]) -> T:
        """Call a function on the primary process first, then on all others (a download, then its reading).

        Returns:
            What it gave here, once it is done everywhere.

        Raises:
            UserError: raised by the function on any process, in all of them.
            CommandError: as well.
        """
        found: list[T] = []

        def take() -> None:
            found.append(function())

        for turn in (True, False):
            self.agreed(take if turn is self.primary else _nothing)
        return found[0]

    def _raise_any(self, error: CommandError | UserError | None) -> None:
        """Wait for all processes, and raise the first error among theirs."""
        errors = [error] * self.count
        if self.count > 1:
            distributed.all_gather_object(errors, error, group=self.group)
        for one in errors:
            self._raise_told(one)

    def agreed(self, function: Callable[[], T]) -> T:
        """Call a function on all processes, which then go on together.

        Raises:
            UserError: raised by the function on any process, in all of them.
            CommandError: as well.
        """
        found: list[T] = []
        error = None
        try:
            found.append(function())
        except (CommandError, UserError) as caught:
            error = caught
        self._raise_any(error)
        return found[0]

    def _raise_told(self, error: CommandError | UserError | None) -> None:
        """Raise an error that all processes have; the primary one alone tells it."""
        if error is not None:
            error.told_elsewhere = not self.primary
            raise error


def _nothing() -> None:
    """The turn of others."""


def single_process() -> Processes:
    """This process alone, on the GPU where there is one."""
    return Processes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextlib.contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that torchrun or Slurm started: nccl on GPUs (not run here), gloo on CPUs.

    Yields:
        This process among them, or alone where neither started it.

    Raises:
        RuntimeError: the others can't be reached.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    joined = init_distributed_device_so(kind)
    try:
        group = distributed.new_group(backend="gloo", timeout=PATIENCE) if joined["distributed"] else None
        yield Processes(torch.device(joined["device"]), joined["global_rank"], joined["world_size"], group)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
