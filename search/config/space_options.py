"""What a search may choose from: a value of its own, from Python or a YAML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cp_vision.shared.errors import UserError, closest, listed
from cp_vision.surgery.insert_pools import POOL_MODES

from ...recipes.recipe.yaml_text import parse_yaml

__all__ = ["SpaceOptions", "load_space_options", "matching"]


class SpaceOptions(BaseModel):
    """What a search may choose from. Whatever is left out has a default that suits the base.

    Names of sites may be patterns of the shell's kind (``blocks.*``, ``layer3.[1-4]``).

    Attributes:
        pools: sites where a pool may stand, stems and down-samplings too; default
            those of a bare ``cp_<base>``.
        max_pools: the most pools of a candidate.
        drops: blocks that may be left out; default all that can be.
        max_drops: the most that a candidate may leave out.
        modes: how pools act (``gated``, ``replace``, ``pre_attn``), one for all pools of a candidate.
        support_range: of supports, as shares of the grid's longer side, see :class:`cp_vision.ContextPool2d`; one for
            all pools of a candidate.
        img_size: sides of the images in pixels; the base has the first. Default the recipe's.

    Raises:
        pydantic.ValidationError: an unknown key, a wrong type or value. :func:`load_space_options` raises a UserError
            instead, also for an unknown mode or a value that is named twice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pools: tuple[str, ...] | None = None
    max_pools: Annotated[int, Field(ge=0)] | None = None
    drops: tuple[str, ...] | None = None
    max_drops: Annotated[int, Field(ge=0)] | None = None
    modes: tuple[str, ...] = ()
    support_range: tuple[Annotated[float, Field(gt=0)], ...] = ()
    img_size: tuple[Annotated[int, Field(ge=1)], ...] = ()


def load_space_options(source: str | Path | Mapping[str, Any] | SpaceOptions | None) -> SpaceOptions:
    """Read what a search may choose from.

    Args:
        source: path of a YAML file, a mapping of its keys, a value that is ready, or None for the defaults.

    Raises:
        UserError: no such file, not YAML, an unknown key, a wrong type or value.
    """
    if isinstance(source, SpaceOptions):
        return source
    if source is None:
        return SpaceOptions()
    if isinstance(source, Mapping):
        return _checked(dict(source), "space")
    path = Path(source)
    if not path.is_file():
        raise UserError(f"space {str(source)!r} is no file; name a YAML file with {listed(SpaceOptions.model_fields)}")
    values = parse_yaml(path.read_bytes(), f"space {path} is not YAML")
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"space {path} must be a mapping of keys to values ({listed(SpaceOptions.model_fields)})")
    return _checked(values, f"space {path}")


def matching(patterns: Iterable[str], names: Iterable[str], key: str) -> tuple[str, ...]:
    """The names that any of the patterns matches, in their own order.

    Args:
        patterns: of the shell's kind.
        names: the names that there are.
        key: key of the space that they stand under, for errors.

    Raises:
        UserError: a pattern that matches nothing.
    """
    names, patterns = tuple(names), tuple(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"space: {key}: no such site {pattern!r}{closest(pattern, names)} (there are: {listed(names, 40)})"
            )
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


def _checked(values: dict[str, Any], source: str) -> SpaceOptions:
    for key, value in values.items():
        if key not in SpaceOptions.model_fields:
            raise UserError(
                f"{source}: unknown key {key!r}{closest(str(key), SpaceOptions.model_fields)} "
                f"(keys: {listed(SpaceOptions.model_fields)})"
            )
        if key in ("modes", "support_range", "img_size") and not isinstance(value, list | tuple):
            values = {**values, key: [value]}
    try:
        choices = SpaceOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{source}: {key}: {first['msg']}, got {first['input']!r}") from error
    for mode in choices.modes:
        if mode not in POOL_MODES:
            raise UserError(f"{source}: modes: {mode!r} is not one of {', '.join(POOL_MODES)}")
    for key in ("modes", "support_range", "img_size"):
        given = getattr(choices, key)
        if len(set(given)) < len(given):
            raise UserError(f"{source}: {key}: {list(given)} names a value twice")
    return choices
