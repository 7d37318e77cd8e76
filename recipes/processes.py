"""The processes of a training: one, or as many as torchrun started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.utils.distributed import init_distributed_device_so
from torch import Tensor, distributed

__all__ = ["Processes", "joined_processes", "single_process"]


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
        """Mean of a value over all processes."""
        if self.count > 1:
            distributed.all_reduce(value)
            value /= self.count
        return value

    def any(self, table: Tensor) -> Tensor:
        """Element-wise "or" of a table of booleans over all processes."""
        if self.count > 1:
            flags = table.to(self.device, torch.uint8)
            distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
            table = flags.bool().to(table.device)
        return table

    def told(self, value: Any) -> Any:
        """What the primary process passes, in all of them."""
        values = [value]
        if self.count > 1:
            distributed.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            distributed.barrier()


def single_process() -> Processes:
    """This process alone, on the GPU where there is one."""
    return Processes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@contextlib.contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that torchrun or Slurm started: nccl on GPUs (not run here), gloo on CPUs."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    joined = init_distributed_device_so(kind)
    try:
        yield Processes(torch.device(joined["device"]), joined["global_rank"], joined["world_size"])
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
