"""The ``cp_*`` names in torchvision's registry: its ResNets and ViTs with ContextPool."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchvision.models import get_model_builder, get_model_weights, list_models, resnet, vision_transformer
from torchvision.models._api import register_model

from ..shared.errors import UserError

__all__ = ["TORCHVISION_BASES"]

TORCHVISION_BASES = tuple(
    name
    for name in list_models()
    if inspect.unwrap(get_model_builder(name)).__module__ in (resnet.__name__, vision_transformer.__name__)
)
"""torchvision's names of the bases that have a ``cp_<base>`` in its registry."""


def _register(base: str) -> None:
    """Register ``cp_<base>`` with the base's weights enum."""
    build = get_model_builder(base)
    choices: Any = get_model_weights(base)

    def builder(
        *,
        weights: Any = None,
        progress: bool = True,
        pools: str | Sequence[str] = "default",
        drops: Sequence[str] = (),
        pool_options: dict[str, Any] | None = None,
        replaces: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
        replace_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        # As in cp_models.py.
        from .build import change_blocks

        try:
            weights = choices.verify(weights)
        except (KeyError, TypeError) as error:
            raise UserError(f"weights {weights!r} must be one of {', '.join(map(str, choices))}, or None") from error
        model = build(weights=weights, progress=progress, **kwargs)
        return change_blocks(model, pools, drops, pool_options, replaces, replace_options)

    builder.__name__ = builder.__qualname__ = f"cp_{base}"
    builder.__doc__ = (
        f"{base} with ContextPool; pools=, drops=, replaces=, pool_options= and replace_options= besides the base's "
        "arguments.\n\n"
        "Raises:\n    UserError: unknown weights, wrong pools, drops, replacements or options.\n"
    )
    # torchvision finds the weights of a name by this annotation.
    builder.__annotations__["weights"] = choices | None
    register_model()(builder)


for _base in TORCHVISION_BASES:
    _register(_base)
