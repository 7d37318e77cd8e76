"""Our least squares for others' channels: the layers that end a pruned model's halves and blocks, fitted to the base.

Shapes: M tokens or pixels of all images, F inputs of such a layer (of a 3 x 3 convolution nine for each channel), C its
outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cp_vision.fitting.least_squares import Regression, Sums, solve

__all__ = ["refit_read_outs"]

_BATCH = 32


@torch.no_grad()
def refit_read_outs(model: nn.Module, base: nn.Module, images: Tensor, names: list[str]) -> nn.Module:
    """A copy whose named layers map their inputs to what the base's layers of these names give, one after another.

    Args:
        model: pruned, in eval mode; each layer sees what those before it, fitted already, make of the images.
        base: what was pruned, in eval mode.
        images: (N, C, H, W), normalised; every fourth batch is held out, for the ridge.
        names: of linear layers and convolutions without groups, from input to output. A BatchNorm that follows one
            without a bias takes it.
    """
    model = copy.deepcopy(model)
    for name in names:
        layer: Any = model.get_submodule(name)
        parts: list[Sums] = []
        for i, (features_MF, targets_MC) in enumerate(_rows(model, base, name, images)):
            if not parts:
                parts = [Sums(features_MF.shape[1], targets_MC.shape[1]) for _ in range(2)]
            parts[i % 4 == 3].add(features_MF, targets_MC)
        fitted, held_out = parts
        found, _ = solve(Regression(fitted), held_out, len(fitted.t_C))
        bias = found.bias.float()
        if layer.bias is None:
            if (norm := _norm_after(model, name)) is None:
                # Through the origin, as the layer is.
                continue
            norm.running_mean.sub_(bias)
        else:
            layer.bias.copy_(bias)
        layer.weight.copy_((found.up @ found.down).float().view_as(layer.weight))
    return model


def _rows(model: nn.Module, base: nn.Module, name: str, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs of the model's layer (M, F), and what the base's gives (M, C), of a batch of images each."""
    seen: dict[str, Tensor] = {}
    own: Any = model.get_submodule(name)

    def keep_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["input"] = inputs[0]

    def keep_output(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen["output"] = output

    handles = (
        own.register_forward_pre_hook(keep_input),
        base.get_submodule(name).register_forward_hook(keep_output),
    )
    try:
        for batch in images.split(_BATCH):
            model(batch), base(batch)
            x, y = seen["input"], seen["output"]
            if isinstance(own, nn.Conv2d):
                x = F.unfold(x, own.kernel_size, own.dilation, own.padding, own.stride).mT
                y = y.flatten(2).mT
            yield x.flatten(0, -2), y.flatten(0, -2)
    finally:
        for handle in handles:
            handle.remove()


def _norm_after(model: nn.Module, name: str) -> Any:
    """The BatchNorm that is called next to a convolution, by its place among its parent's parts."""
    parent, _, _ = name.rpartition(".")
    parts = [part for _, part in model.get_submodule(parent).named_children()]
    after = parts[parts.index(model.get_submodule(name)) + 1 :]
    return after[0] if after and isinstance(after[0], nn.BatchNorm2d) else None
