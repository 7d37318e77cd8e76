"""What stands where a block was whose output is known."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["PlayedBlock"]


class PlayedBlock(nn.Module):
    """Gives what a block gave, whatever it gets.

    Args:
        output: gives the block's output for the batch that is running.
        count: gives how many images of it are asked for, the first ones; None takes as many as the block gets.
    """

    def __init__(self, output: Callable[[], Tensor], count: Callable[[], int] | None = None) -> None:
        super().__init__()
        self.output, self.count = output, count

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Give the output; what comes after may work on it in place."""
        return self.output()[: len(x) if self.count is None else self.count()].clone()

    def set_input_size(self, *args: object, **kwargs: object) -> None:
        """Do nothing: a stage of a Swin transformer tells every block its new size."""
