"""Doing something once another package is imported, without importing it first."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["import_after"]


def import_after(package: str, module: str) -> None:
    """Import a module as soon as a package has been imported: now where it has, right after it otherwise.

    Args:
        package: name of the package, without dots.
        module: whole name of the module.
    """
    if package in sys.modules:
        importlib.import_module(module)
    else:
        # First, since the finder that knows the package ends the search for it.
        sys.meta_path.insert(0, _After(package, module))


class _After(MetaPathFinder):
    """Finds the package as the other finders do, and lets its loader import the module afterwards."""

    def __init__(self, package: str, module: str) -> None:
        self.package, self.module = package, module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The package's spec; it may be asked for without being loaded."""
        if fullname != self.package:
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next((s for finder in others if (s := finder.find_spec(fullname, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                importlib.import_module(self.module)

            loader.exec_module = exec_module
        return spec
