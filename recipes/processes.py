"""The processes of a training: one, or as many as torchrun started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from timm.utils.distributed import init_distributed_device_so
from torch import Tensor, distributed

from cp_vision.errors import UserError

__all__ = ["Processes", "joined_processes", "single_process"]


T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those of a training.

    Attributes:
        device: where this process computes.
        rank: its number, from 0.
        count: how many there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

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
        """What a function gives on the primary process, in all of them, be it a UserError.

        Args:
            function: called on the primary process alone; what it gives can be pickled.

        Raises:
            UserError: raised by the function, in all processes.
        """
        told: list[Any] = [None, None]
        if self.primary:
            try:
                told[0] = function()
            except UserError as error:
                told[1] = error
        if self.count > 1:
            distributed.broadcast_object_list(told)
        if told[1] is not None:
            raise told[1]
        found: T = told[0]
        return found

    def in_turn(self, function: Callable[[], T]) -> T:
        """Call a function on the primary process first, then on all others (a download, then its reading)."""
        if self.count == 1:
            return function()
        if not self.primary:
            distributed.barrier()
        found = function()
        if self.primary:
            distributed.barrier()
        return found


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
        yield Processes(torch.device(joined["device"]), joined["global_rank"], joined["world_size"])
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
