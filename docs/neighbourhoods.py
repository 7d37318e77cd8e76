"""The README's picture: what a pool does to the neighbourhoods of tokens, on a real image, as a trained model does it.

    cp-train fashion_mnist --data-dir DIR --output runs/picture --set img_size=56 --set epochs=3 --set "$POOL"
    python docs/neighbourhoods.py runs/picture/best DIR

with POOL='model_kwargs={pools: [layer1.0], pool_options: {mode: replace, support_range: 0.25}}'. Writes
``neighbourhoods.png`` beside this file: supports and weights of all tokens, and the average that some of them take.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import timm
import torch
from matplotlib.patches import Circle
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor
from torchvision.datasets import FashionMNIST

import cp_vision

matplotlib.use("Agg")
from matplotlib import pyplot

# Images of the test split, and tokens of each (row and column): at an edge, inside, on the background.
SHOWN = {0: ((9, 3), (7, 8), (2, 4)), 18: ((4, 3), (7, 7), (1, 12))}


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("data_dir", help="folder of Fashion-MNIST")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("neighbourhoods.png"))
    arguments = parser.parse_args()
    model: Any = timm.create_model(f"local-dir:{arguments.model}", pretrained=True).eval()
    transform: Any = create_transform(**resolve_model_data_config(model), is_training=False)
    images = FashionMNIST(arguments.data_dir, train=False)
    figure, axes = pyplot.subplots(len(SHOWN), 4, figsize=(10, 2.65 * len(SHOWN)), layout="constrained")
    for row, (number, tokens) in zip(axes, SHOWN.items(), strict=True):
        picture = transform(images[number][0])
        log_weight, sigma = looks(model, picture[None])
        side = picture.shape[-1] / sigma.shape[-1]
        for axis in row:
            axis.imshow(picture[0], cmap="gray")
            axis.axis("off")
        supports(row[0], log_weight, sigma, side)
        for axis, token in zip(row[1:], tokens, strict=True):
            average(axis, log_weight, sigma, token, side)
    axes[0][0].set_title("support of every token (circle)\nand its weight (colour)", fontsize=9)
    for axis, name in zip(axes[0][1:], ("at an edge", "inside", "on the background"), strict=True):
        axis.set_title(f"what the token at the cross,\n{name}, averages", fontsize=9)
    figure.savefig(arguments.output, dpi=110, metadata={"Software": None})


@torch.inference_mode()
def looks(model: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    """Log weights and supports of the first pool, (H, W) each, for an image (1, C, H, W)."""
    pool = next(module for module in model.modules() if isinstance(module, cp_vision.ContextPool2d))
    seen: list[Tensor] = []
    handle = pool.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(image)
    handle.remove()
    log_weight, sigma = pool.weight_and_support(seen[0])
    return log_weight[0], sigma[0]


def supports(axis: Any, log_weight: Tensor, sigma: Tensor, side: float) -> None:
    """A circle for every token: its radius is the support, its colour the weight."""
    low, high = log_weight.min(), log_weight.max()
    for y in range(sigma.shape[0]):
        for x in range(sigma.shape[1]):
            colour = pyplot.cm.viridis(float((log_weight[y, x] - low) / (high - low)))
            centre = ((x + 0.5) * side - 0.5, (y + 0.5) * side - 0.5)
            axis.add_patch(Circle(centre, float(sigma[y, x]) * side, fill=False, color=colour, lw=0.7, alpha=0.8))


def average(axis: Any, log_weight: Tensor, sigma: Tensor, token: tuple[int, int], side: float) -> None:
    """How much every token counts in the average of one: the pool's response to an image of a single bright token."""
    height, width = sigma.shape
    # One channel for each token, which is 1 there and 0 elsewhere.
    single = torch.eye(height * width).view(1, height * width, height, width)
    pooled = cp_vision.context_pool(single, log_weight[None], sigma[None], backend="exact")
    share = pooled[0, :, token[0], token[1]].view(height, width)
    extent = (-0.5, width * side - 0.5, height * side - 0.5, -0.5)
    axis.imshow(share, cmap="inferno", alpha=0.65, extent=extent, interpolation="nearest")
    axis.plot((token[1] + 0.5) * side - 0.5, (token[0] + 0.5) * side - 0.5, "+", color="cyan", ms=9, mew=1.6)


if __name__ == "__main__":
    main()
