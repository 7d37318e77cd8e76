"""What stands where a block was whose output is known."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["PlayedBlock"]


class PlayedBlock(nn.Module):
    """Gives what a block gave, whatever it gets.

    Args:
        output: gives the block's output for the batch that is running, of which the images are the first.
    """

    def __init__(self, output: Callable[[], Tensor]) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """Give the output; what comes after may work on it in place."""
        return self.output()[: len(x)].clone()

    def set_input_size(self, *args: object, **kwargs: object) -> None:
        """Do nothing: a stage of a Swin transformer tells every block its new size."""
