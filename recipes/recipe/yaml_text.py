"""YAML as people write it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from cp_vision.shared.errors import UserError, one_line

__all__ = ["parse_yaml"]


class _Loader(yaml.SafeLoader):
    """Takes ``1e-5`` for a number, as YAML 1.2 does; to PyYAML, which wants ``1.0e-5``, it is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str | bytes, problem: str) -> Any:
    """The value that a text says, of plain types alone.

    Args:
        text: the text.
        problem: what to say where it is not YAML.

    Raises:
        UserError: it is not YAML.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except Exception as error:
        # For a value that is not of its kind (!!int abc, the month 13) PyYAML raises whatever Python does.
        raise UserError(f"{problem}: {one_line(error)}") from error
