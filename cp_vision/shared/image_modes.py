"""The colours that a model takes."""

from __future__ import annotations

from PIL import Image

__all__ = ["in_colours"]


def in_colours(image: Image.Image, mode: str) -> Image.Image:
    """An image in the colours that a model takes.

    Args:
        image: any image.
        mode: PIL's name of the colours, ``"RGB"`` or ``"L"``.

    Raises:
        OSError: the image is damaged.
    """
    if image.mode.startswith("I;16"):
        # PIL would take all but the darkest 256 of the 65,536 greys for white.
        image = image.convert("I").point(lambda grey: grey * (1 / 257)).convert("L")
    return image.convert(mode)
