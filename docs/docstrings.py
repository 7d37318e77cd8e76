"""What the docstrings hold for readers of the code, made readable on the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`([^`]+)`")
_BLOCK = re.compile(r"::$", re.MULTILINE)


class PlainRoles(griffe.Extension):
    """Writes ``:func:`name``` as code, and the double colon before an indented block as a single one."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of a module, class or function."""
        if obj.docstring is not None:
            obj.docstring.value = _BLOCK.sub(":", _ROLE.sub(r"`\1`", obj.docstring.value))
