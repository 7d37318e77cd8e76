"""What pydantic refuses, in one line that says what to write."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from cp_vision.shared.errors import closest

__all__ = ["allowed", "first_mistake"]

_KINDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "object": "a mapping of names to values",
    "null": "null",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def first_mistake(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """The key that a model refuses, and one line with the value, and what is allowed there.

    Of several mistakes an unknown key comes first: it is often the reason of the others.
    """
    errors = error.errors()
    unknown = {"extra_forbidden", "invalid_key"}
    first = next((one for one in errors if one["type"] in unknown), errors[0])
    key = str(first["loc"][0])
    if first["type"] in unknown:
        return key, f"unknown key {key!r}{closest(key, model.model_fields)}"
    if first["type"] == "value_error":
        return key, f"{key}: {first['ctx']['error']}"
    place = ".".join(str(part) for part in first["loc"])
    return key, f"{place}: got {first['input']!r}, {key} must be {allowed(model, key)}"


def allowed(model: type[BaseModel], key: str) -> str:
    """What may stand under a key: its type and bounds in words."""
    return _words(_schema(model)[key])


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return properties


def _words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        # null first, so that what follows "each" is not taken for its alternative.
        parts = sorted(schema["anyOf"], key=lambda part: part.get("type") != "null")
        return " or ".join(_words(part) for part in parts)
    if "enum" in schema:
        return "one of " + ", ".join(repr(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"a list in brackets, each {_words(schema['items'])}"
    bounds = [f"{word} {schema[name]}" for name, word in _BOUNDS.items() if name in schema]
    return " ".join([_KINDS[schema["type"]], " and ".join(bounds)]).rstrip()
