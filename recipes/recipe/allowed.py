"""What may stand under a key, in words."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

__all__ = ["allowed"]

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
