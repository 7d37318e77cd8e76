"""A picture of the supports that a model has learned, over an image (H, W, C)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..shared.errors import UserError
from .support_maps import SupportMap

__all__ = ["plot_supports"]

_COLUMNS = 4


def plot_supports(maps: Sequence[SupportMap], picture: Tensor, path: Path, title: str) -> None:
    """Draw the image, and the support of every pool over it.

    Args:
        maps: of :func:`cp_vision.commands.support_maps.support_maps`.
        picture: the image, (H, W, C) in [0, 1].
        path: file to write; its ending says the format (``.png``, ``.svg``, ``.pdf``).
        title: what stands above.

    Raises:
        UserError: matplotlib is not there, or doesn't know the format.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("--plot needs matplotlib; pip install 'cp-vision[plot]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    formats = pyplot.figure().canvas.get_supported_filetypes()
    pyplot.close()
    if path.suffix.lower().removeprefix(".") not in formats:
        raise UserError(f"--plot {str(path)!r} must end in one of {', '.join(f'.{name}' for name in sorted(formats))}")
    columns = min(_COLUMNS, len(maps) + 1)
    rows = -(-(len(maps) + 1) // columns)
    height, width = picture.shape[:2]
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(2.9 * columns, 2.9 * rows * height / width + 0.9), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    gray: Any = picture.mean(2).numpy()
    axes.flat[0].imshow(picture.numpy() if picture.shape[2] == 3 else gray, cmap="gray")
    axes.flat[0].set_title("image", fontsize=9)
    # One scale for all pools, so that they compare.
    low, high = min(float(m.sigma.min()) for m in maps), max(float(m.sigma.max()) for m in maps)
    for axis, one in zip(axes.flat[1:], maps, strict=False):
        axis.imshow(gray, cmap="gray", vmin=0, vmax=1)
        shown = axis.imshow(
            one.sigma.numpy(),
            cmap="viridis",
            alpha=0.65,
            vmin=low,
            vmax=high,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )
        gate = "" if one.gate is None else f", mean |gate| {one.gate:.2g}"
        axis.set_title(f"{one.site}\n{one.sigma.min():.1f} to {one.sigma.max():.1f} px{gate}", fontsize=8)
    figure.colorbar(shown, ax=axes, label="support (sigma) in pixels of the image", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    unfinished = path.with_name(f".{path.name}.unfinished{path.suffix}")
    try:
        figure.savefig(unfinished, dpi=140)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
        pyplot.close(figure)
