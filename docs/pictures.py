"""Draws the pictures of the documentation: python docs/pictures.py. Photographs are those that scikit-learn bundles."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib import pyplot
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn import functional as F

import cp_vision

matplotlib.use("Agg")

# Of the photograph that is shown: small enough that single pixels are seen.
GRID = (107, 160)


def photograph() -> Tensor:
    """The photograph of a flower, (1, 3, H, W) in [0, 1]."""
    pixels = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)[None] / 255
    return F.interpolate(pixels, GRID, mode="area")


def show(axis: Any, picture: Tensor, title: str) -> None:
    """An image (1, 3, H, W) or a map (H, W) without axes."""
    flat = picture[0].permute(1, 2, 0).clamp(0, 1) if picture.ndim == 4 else picture
    axis.imshow(flat.numpy(), cmap="viridis", interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def kernels(backend: str, sigma: float, size: int, log_weight: Tensor | None = None) -> Tensor:
    """How much every token of a map counts for the one in its middle, (size, size)."""
    # Every token is a channel of its own, so that what comes out of the middle is its weights.
    tokens = torch.eye(size * size).view(1, size * size, size, size)
    equal = torch.zeros(1, size, size) if log_weight is None else log_weight
    pooled = cp_vision.context_pool(tokens, equal, torch.full((1, size, size), sigma), backend=backend)
    return pooled[0, :, size // 2, size // 2].view(size, size)


def draw_kernels() -> Any:
    """Gaussians of several supports, by the formula and by the linear backend, along the middle row."""
    supports, size = (0.5, 1.0, 2.0, 4.0), 33
    figure, axes = pyplot.subplots(1, len(supports), figsize=(9, 2.4), sharex=True, layout="constrained")
    places = torch.arange(size) - size // 2
    for axis, sigma in zip(axes, supports, strict=True):
        axis.bar(places, kernels("exact", sigma, size)[size // 2], width=1.0, color="#9bd1c7", label="exact")
        row = kernels("linear", sigma, size)[size // 2]
        axis.plot(places, row, color="#00574b", marker=".", markersize=3, linewidth=0.8, label="linear")
        axis.set_title(f"support {sigma:g} px", fontsize=9)
        axis.set_xlim(-13, 13)
        axis.tick_params(labelsize=7)
    axes[0].legend(fontsize=7, frameon=False)
    figure.supxlabel("pixels from the output token", fontsize=8)
    figure.supylabel("weight", fontsize=8)
    return figure


def draw_weights() -> Any:
    """One support, three sets of weights: what the learned weight does to a kernel."""
    size, sigma = 21, 3.0
    right = torch.zeros(1, size, size)
    right[..., size // 2 + 1 :] = 2.0
    hole = torch.zeros(1, size, size)
    hole[:, 7:10, 7:14] = float("-inf")
    cases = (("equal weights", None), ("the right half weighs exp(2)", right), ("tokens left out", hole))
    figure, axes = pyplot.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
    for axis, (title, weight) in zip(axes, cases, strict=True):
        show(axis, kernels("exact", sigma, size, weight), title)
    return figure


def draw_photograph() -> Any:
    """A pool on a photograph: fixed supports, and supports that differ from token to token."""
    image, equal = photograph(), torch.zeros(1, *GRID)
    figure, axes = pyplot.subplots(2, 3, figsize=(9, 4.6), layout="constrained")
    show(axes[0, 0], image, "the photograph")
    for axis, sigma in zip(axes[0, 1:], (2.0, 6.0), strict=True):
        show(
            axis,
            cp_vision.context_pool(image, equal, torch.full((1, *GRID), sigma)),
            f"support {sigma:g} px everywhere",
        )
    # As a trained mapping might: what stands before the background looks near, the background far.
    saturation = image.amax(1) - image.amin(1)
    support = 0.1 + 8 * torch.sigmoid(14 * (0.35 - F.avg_pool2d(saturation, 5, 1, 2)))
    show(axes[1, 0], support[0], "a support per token: 0.1 to 8 px")
    show(axes[1, 1], cp_vision.context_pool(image, equal, support), "with these supports")
    heavy = 6 * saturation
    show(axes[1, 2], cp_vision.context_pool(image, heavy, support), "and colourful tokens weighing more")
    return figure


def draw_strides() -> Any:
    """A pool with a stride beside the conventional poolings whose place it takes."""
    image, stride = photograph(), 4
    coarse = tuple(-(-side // stride) for side in GRID)
    equal, support = torch.zeros(1, *GRID), torch.full((1, *coarse), stride / 2)
    figure, axes = pyplot.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
    show(axes[0], F.max_pool2d(image, stride, ceil_mode=True), "max pooling, stride 4")
    show(axes[1], F.avg_pool2d(image, stride, ceil_mode=True), "average pooling, stride 4")
    show(
        axes[2], cp_vision.context_pool(image, equal, support, stride=stride), "context pooling, stride 4, support 2 px"
    )
    return figure


PICTURES = {
    "kernels.svg": draw_kernels,
    "weights.png": draw_weights,
    "photograph.png": draw_photograph,
    "strides.png": draw_strides,
}


def main() -> None:
    """Draw all pictures into a folder."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "pictures", help="folder to write")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    # Drawn again, a picture is the same file.
    pyplot.rcParams["svg.hashsalt"] = "cp-vision"
    for name, draw in PICTURES.items():
        figure = draw()
        metadata = {"Date": None} if name.endswith(".svg") else {"Software": None}
        figure.savefig(folder / name, dpi=110, metadata=metadata)
        pyplot.close(figure)
        print(f"wrote {folder / name}")


if __name__ == "__main__":
    main()
