"""Models whose wrong values are one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cp_vision.shared.validation import first_mistake

__all__ = ["CheckedModel"]


class CheckedModel(BaseModel):
    """A frozen model without unknown keys that takes no value of another type, but for whole numbers as numbers.

    Raises:
        UserError: an unknown key, a wrong type or value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    # Type checkers take the arguments from the fields.
    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise first_mistake(error, type(self).model_fields) from error

    def with_values(self, **values: Any) -> Self:
        """A copy with some values replaced, checked like any other.

        Raises:
            UserError: an unknown key, a wrong type or value.
        """
        return type(self)(**{**dict(self), **values})
