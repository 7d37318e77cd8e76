"""What pydantic finds wrong with a value, as one line of ours. Imports no pydantic: its errors are plain mappings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .errors import UserError, closest, listed

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["FieldError", "first_mistake"]

# By pydantic's types of errors.
_PROBLEMS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of keys to values",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt:.12g}",
    "greater_than_equal": "must be {ge:.12g} or more",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt:.12g}",
    "less_than_equal": "must be {le:.12g} or less",
    "list_type": "must be a list",
    "mapping_type": "must be a mapping of keys to values",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}


class FieldError(UserError):
    """A field of a model has a value that can't be used.

    Attributes:
        field: name of the field; with a dot and the key where the value is one of a mapping's.
        problem: what is wrong: the message without the name, so that a command can name its option instead.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field, self.problem = field, problem

    def __str__(self) -> str:
        return f"{self.field} {self.problem}"


def first_mistake(error: ValidationError, names: Iterable[str]) -> UserError:
    """The first mistake that pydantic found.

    Args:
        error: of pydantic.
        names: names of the model's fields.

    Returns:
        A UserError that a validator raised, as it is; else a :class:`FieldError`. A validator's ``ValueError`` is what
        follows the name and the value: "needs the evaluator supernet".
    """
    errors = error.errors(include_url=False)
    # An unknown key is often the reason of the others.
    found = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    context = found.get("ctx", {})
    if isinstance(context.get("error"), UserError):
        return context["error"]
    name = ".".join(str(part) for i, part in enumerate(found["loc"]) if i == 0 or isinstance(part, str))
    if found["type"] == "missing":
        return FieldError(name, "is missing")
    if found["type"] == "extra_forbidden":
        hint = closest(name, names) or f" (keys: {listed(names, 50)})"
        return FieldError(name, f"is an unknown key{hint}")
    problem = _problem(found["type"], found["msg"], found["input"], context)
    return FieldError(name, f"{_shown(found['input'])} {problem}")


def _problem(kind: str, message: str, value: Any, context: dict[str, Any]) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return f"is not one of {', '.join(allowed) or context['expected']}{closest(str(value), allowed)}"
    return _PROBLEMS[kind].format(**context) if kind in _PROBLEMS else f"can't be used: {message}"


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
