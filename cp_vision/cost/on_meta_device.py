"""Running a copy of a model that takes no memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..shared.errors import UserError, one_line

__all__ = ["image_on_meta", "meta_copy", "run_on_meta"]

# Hooks from these packages make a model what it is; those from elsewhere are their owner's, who counts on real images.
_STRUCTURAL = ("cp_vision", "timm", "torch", "torchvision")


def meta_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device without copying its weights first, nor what others hang on it by hooks.

    Raises:
        UserError: it holds something that can't be copied.
    """
    memo: dict[int, Any] = {id(hook): _no_hook for hook in _hooks(model) if not _is_structural(hook)}
    # Under inference mode torch calls operators by other names, which nobody counts.
    with torch.inference_mode(False), _CopiesWithoutValues():
        try:
            for parameter in model.parameters():
                memo[id(parameter)] = nn.Parameter(_shape_of(parameter), parameter.requires_grad)
            for buffer in model.buffers():
                memo[id(buffer)] = _shape_of(buffer)
            return copy.deepcopy(model, memo).eval()
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"{type(model).__name__} can't be copied to the meta device: {one_line(error)}") from error


def run_on_meta(trial: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Run a model that is on the meta device on one image of this size, (channels, height, width)."""
    with torch.inference_mode(False), torch.no_grad():
        trial(image_on_meta(trial, input_size))


def image_on_meta(trial: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """An input of this shape without its batch, of the type of a model's parameters; float32 where it has none."""
    kinds = (parameter.dtype for parameter in trial.parameters() if parameter.is_floating_point())
    return torch.empty(1, *input_shape, device="meta", dtype=next(kinds, torch.float32))


class _CopiesWithoutValues(TorchFunctionMode):
    """Copies a tensor as its shape, one in the midst of a graph too (a mask's product), which torch refuses to."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Whole numbers may be more than values: the state of a random number generator.
        if func is Tensor.__deepcopy__ and args[0].is_floating_point():
            return _shape_of(args[0])
        return func(*args, **(kwargs or {}))


def _shape_of(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor.detach(), device="meta")


def _hooks(model: nn.Module) -> Iterator[Callable[..., Any]]:
    """Whatever is called as any part of a model runs."""
    for module in model.modules():
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            yield from getattr(module, kind).values()


def _is_structural(hook: Any) -> bool:
    while hasattr(hook, "func"):
        hook = hook.func
    return str(getattr(hook, "__module__", "")).partition(".")[0] in _STRUCTURAL


def _no_hook(*args: object, **kwargs: object) -> None:
    """Stands in a copy for a hook of a user's."""
