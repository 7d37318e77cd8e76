"""Cost in MACs: one multiply-add counts one, the figure that papers print as FLOPs."""

from __future__ import annotations

from typing import Any

import torch
from ptflops.aten_engine import FlopCounterMode
from timm import create_model
from torch import nn

from ..layers.context_pool_2d import ContextPool2d
from ..pooling.linear import linear_macs
from ..shared.errors import UserError, one_line
from .input_size import input_size_of
from .on_meta_device import image_on_meta, meta_copy

__all__ = ["count_macs", "count_module", "format_macs", "pool_macs"]


def _baddbmm_macs(inputs: Any, outputs: Any) -> int:
    """MACs of products of two batches of matrices, with the bias that is added."""
    _, first, _ = inputs
    return outputs[0].numel() * (first.shape[2] + 1)


def _linear_pool_macs(inputs: Any, outputs: Any) -> int:
    """MACs of pools by the linear backend."""
    x, *_, stride, levels = inputs
    _, _, rows, columns = outputs[0].shape
    return len(x) * linear_macs(x.shape[1], (x.shape[2], x.shape[3]), rows * columns, stride, levels)


# Operators that ptflops doesn't know, by their arguments and results.
_OPERATORS = {torch.ops.cp_vision.linear_pool: _linear_pool_macs, torch.ops.aten.baddbmm: _baddbmm_macs}


def count_macs(model: nn.Module | str, input_size: tuple[int, int, int] | None = None) -> int:
    """Count the MACs of one image, pools included.

    Counted through ptflops on the meta device, so it takes a fraction of a second and no memory: products,
    convolutions and their biases; not norms, activations or element-wise sums.

    Args:
        model: a model, which is left untouched, or a name that ``timm.create_model`` knows.
        input_size: (channels, height, width) in pixels; None takes the model's own.

    Returns:
        MACs for a batch of one.

    Raises:
        UserError: no model, an input size that is none, or pools or drops in the name's arguments that can't be.
        RuntimeError: timm doesn't know the name, or the model doesn't run on this input size.
        FileNotFoundError: a ``local-dir:`` name without that folder.
    """
    if isinstance(model, str):
        with torch.inference_mode(False), torch.device("meta"):
            trial = create_model(model)
    elif isinstance(model, nn.Module):
        trial = meta_copy(model)
    else:
        raise UserError(f"{model!r} is no model, nor the name of one")
    return count_module(trial, input_size_of(trial, input_size))


def pool_macs(pool: ContextPool2d, grid: tuple[int, int]) -> int:
    """Cost of one pool in MACs on a map of this height and width: :meth:`ContextPool2d.macs`."""
    return pool.macs(grid)


def count_module(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the MACs of a module on the meta device.

    Args:
        module: any module on the meta device; put into evaluation mode.
        input_shape: shape of its input without the batch dimension.

    Raises:
        RuntimeError: the module doesn't run on this input, or has layers of which none was seen at work.
    """
    # ptflops' own function prints what goes wrong, and leaves hooks in the model.
    counter: Any = FlopCounterMode(output_params={"print_params": {}}, custom_hooks=_OPERATORS)
    with torch.inference_mode(False), torch.no_grad():
        try:
            image = image_on_meta(module.eval(), input_shape)
            with counter:
                module(image)
        except Exception as error:
            # Whatever a forward pass on an input of another size raises.
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise RuntimeError(f"{type(module).__name__} doesn't run on an input of {input_shape}: {reason}") from error
    if counter.complexity == 0 and any(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules()):
        raise RuntimeError(
            f"the MACs of {type(module).__name__} can't be counted: no product or convolution of its was seen on an "
            f"input of {input_shape}"
        )
    return int(counter.complexity)


def format_macs(count: float) -> str:
    """Write MACs, or parameters, for people: three digits and a unit."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g}{unit}" if count < 1000 * factor else f"{count / factor:.0f}{unit}"
    return f"{count:.0f}"
