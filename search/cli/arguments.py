"""The command line of ``cp-search``, made from the fields of its config."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from cp_vision.shared.command_line import parse_pairs

from ..config.schema import Option, SearchConfig

__all__ = ["add_options", "given_values", "options_table", "spelled"]


class _Shown(NamedTuple):
    """An option as it is shown: its field's name, itself, the type of its values, names that are allowed, the field."""

    name: str
    option: Option
    kind: Any
    names: tuple[str, ...]
    field: FieldInfo

    @property
    def flag(self) -> str:
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def metavar(self) -> str | None:
        return self.option.metavar or ("KEY=VALUE" if self.kind is Mapping else None)


def _options() -> Iterator[_Shown]:
    for name, field in SearchConfig.model_fields.items():
        option = next((item for item in field.metadata if isinstance(item, Option)), None)
        if option is None:
            continue
        kind = field.annotation
        if get_origin(kind) in (Union, UnionType):
            kind = next(part for part in get_args(kind) if part is not NoneType)
        names = get_args(kind) if get_origin(kind) is Literal else ()
        yield _Shown(name, option, get_origin(kind) or kind, names, field)


def _text(shown: _Shown) -> str:
    """What an option means, what it allows and what it is by default."""
    text, default = str(shown.field.description), shown.field.default
    if shown.names:
        text += f": {', '.join(shown.names)}"
    said = shown.kind is bool or "default" in text.lower()
    return text if said or default in (None, (), {}) else f"{text} (default {default})"


class _Pairs(argparse.Action):
    """Takes KEY=VALUE words; of a word without "=" after the first, which may be the base, only note is taken."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        taken = [*values[:1], *(word for word in values[1:] if "=" in word)]
        given = {**getattr(namespace, self.dest, {}), **parse_pairs(taken, str(option_string))}
        setattr(namespace, self.dest, given)
        namespace.left += [(str(option_string), word) for word in values[1:] if "=" not in word]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the base and every option; what isn't given is not in the namespace."""
    parser.set_defaults(left=[])
    parser.add_argument(
        "base", nargs="?", default=argparse.SUPPRESS, help=SearchConfig.model_fields["base"].description
    )
    groups: dict[str, Any] = {}
    for shown in _options():
        if shown.option.group not in groups:
            groups[shown.option.group] = parser.add_argument_group(shown.option.group)
        how: dict[str, Any] = {"type": shown.kind if shown.kind in (int, float) else str, "metavar": shown.metavar}
        if shown.kind is Mapping:
            how |= {"action": _Pairs, "nargs": "*"}
        elif shown.kind is tuple:
            how |= {"action": "append"}
        elif shown.kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        groups[shown.option.group].add_argument(
            shown.flag, dest=shown.name, default=argparse.SUPPRESS, help=_text(shown).replace("%", "%%"), **how
        )


def given_values(namespace: argparse.Namespace, file: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the config: those of the command line over those of a file; mappings and lists are added to.

    Raises:
        UserError: a word after ``--pool-kwargs`` and the like that is neither KEY=VALUE nor the base.
    """
    left = namespace.left
    given = {name: value for name, value in vars(namespace).items() if name in SearchConfig.model_fields}
    if left and "base" not in given:
        given["base"] = left.pop(0)[1]
    for option, word in left:
        parse_pairs([word], option)
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(file.get(name), dict):
            given[name] = {**file[name], **value}
        elif isinstance(value, list) and isinstance(file.get(name), list):
            given[name] = [*file[name], *value]
    return {**file, **given}


def spelled(field: str) -> str:
    """A field as the command line names it: ``--pool-kwargs`` for ``pool_options``."""
    name, dot, key = field.partition(".")
    return next((f"{shown.flag}{' ' if dot else ''}{key}" for shown in _options() if shown.name == name), field)


def options_table() -> str:
    """Every option as tables in Markdown, one for each group."""
    lines, group = [], ""
    for shown in _options():
        if shown.option.group != group:
            group = shown.option.group
            lines += ["", f"## {group.capitalize()}", "", "| Option | Key in a file | What it says |", "|---|---|---|"]
        value = "" if shown.kind is bool else f" {shown.metavar or shown.name.upper()}"
        lines.append(f"| `{shown.flag}{value}` | `{shown.name}` | {_text(shown)} |")
    return "\n".join(lines[1:]) + "\n"
