"""What a search may choose from: a value of its own, from Python or a YAML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from cp_vision.shared.errors import UserError, closest, listed
from cp_vision.shared.validation import FieldError

from .checked import CheckedModel

__all__ = ["SpaceOptions", "load_space_options", "matching"]

# Images of a larger side fit in no memory.
_MAX_IMG_SIZE = 4096


def _tuple(value: Any) -> Any:
    """A list from YAML is taken, and one value for a list of it."""
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, str | int | float) else value


_AsTuple = BeforeValidator(_tuple)


class SpaceOptions(CheckedModel):
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
        img_size: sides of the images in pixels, up to 4096; the base has the first. Default the recipe's.

    Raises:
        UserError: an unknown key, a wrong type or value, a value that is named twice.
    """

    pools: Annotated[tuple[str, ...], _AsTuple] | None = None
    max_pools: int | None = Field(default=None, ge=0)
    drops: Annotated[tuple[str, ...], _AsTuple] | None = None
    max_drops: int | None = Field(default=None, ge=0)
    modes: Annotated[tuple[str, ...], _AsTuple] = ()
    support_range: Annotated[tuple[Annotated[float, Field(gt=0)], ...], _AsTuple] = ()
    img_size: Annotated[tuple[Annotated[int, Field(ge=1, le=_MAX_IMG_SIZE)], ...], _AsTuple] = ()

    @field_validator("modes")
    @classmethod
    def _known(cls, modes: tuple[str, ...]) -> tuple[str, ...]:
        from cp_vision.surgery.insert_pools import POOL_MODES

        for mode in modes:
            if mode not in POOL_MODES:
                raise FieldError("modes", f"{mode!r} is not one of {', '.join(POOL_MODES)}{closest(mode, POOL_MODES)}")
        return modes

    @field_validator("modes", "support_range", "img_size")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("names a value twice")
        return values


def load_space_options(source: str | Path | Mapping[str, Any] | SpaceOptions | None) -> SpaceOptions:
    """Read what a search may choose from.

    Args:
        source: path of a YAML file, a mapping of its keys, a value that is ready, or None for the defaults.

    Raises:
        UserError: no such file, not YAML, an unknown key, a wrong type or value, a value that is named twice.
    """
    if isinstance(source, SpaceOptions):
        return source
    if source is None:
        return SpaceOptions()
    if isinstance(source, Mapping):
        return _checked(source, "space")
    if not isinstance(source, str | Path):
        raise UserError(f"space {source!r} must be a path, or a mapping of {listed(SpaceOptions.model_fields)}")
    path = Path(source)
    if not path.is_file():
        raise UserError(f"space {str(source)!r} is no file; name a YAML file with {listed(SpaceOptions.model_fields)}")
    from ...recipes.recipe.yaml_text import parse_yaml

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


def _checked(values: Mapping[str, Any], source: str) -> SpaceOptions:
    try:
        return SpaceOptions(**{str(key): value for key, value in values.items()})
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
