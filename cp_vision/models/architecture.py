"""A candidate architecture as a value: which base, where to pool, what to leave out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from timm import create_model
from timm.models import is_model
from torch import nn

from ..cost.macs import count_macs, format_macs
from ..shared.errors import UserError, listed
from ..shared.on_meta import on_meta
from .build import check_base

__all__ = ["Architecture"]


@dataclass(frozen=True)
class Architecture:
    """A timm base with pools and drops; builds the model, counts it, goes to JSON and back.

    Attributes:
        base: timm name of the base, with or without a pretrained tag.
        pools: sites with a pool.
        drops: blocks left out.
        pool_options: options of every pool, see :func:`cp_vision.insert_pools`.
        replaces: runs of blocks and halves with a stand-in, and the options of each, see
            :func:`cp_vision.replace_blocks`; a list of names is taken as well.
        model_args: further arguments of the base (``img_size``, ``patch_size``, ``num_classes``); JSON values.

    Raises:
        UserError: pools or drops that are no list, options or arguments that are no mapping of JSON values.
    """

    base: str
    pools: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    pool_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    model_args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    replaces: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("pools", "drops"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise UserError(f"{name} {value!r} must be a list of block names, such as ['blocks.5']")
            object.__setattr__(self, name, tuple(value))
        if isinstance(self.replaces, list | tuple):
            object.__setattr__(self, "replaces", {name: {} for name in self.replaces})
        for name in ("pool_options", "model_args", "replaces"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise UserError(f"{name} {value!r} must be a mapping of names to values")
            try:
                # As JSON has it (lists for tuples), so that an architecture that was read equals the one written.
                object.__setattr__(self, name, json.loads(json.dumps(dict(value))))
            except (TypeError, ValueError) as error:
                raise UserError(f"{name} {dict(value)!r} must hold JSON values alone: {error}") from error

    @property
    def model_name(self) -> str:
        """The timm name that builds it: ``cp_<base>`` where registered, else ``context_pooled``."""
        return f"cp_{self.base}" if is_model(f"cp_{self.base}") else "context_pooled"

    @property
    def create_args(self) -> dict[str, Any]:
        """Arguments for ``timm.create_model`` beside the name, JSON values only."""
        args: dict[str, Any] = {**self.model_args, "pools": list(self.pools), "drops": list(self.drops)}
        if self.pool_options:
            args["pool_options"] = dict(self.pool_options)
        if self.replaces:
            args["replaces"] = dict(self.replaces)
        if self.model_name == "context_pooled":
            args["base"] = self.base
        return args

    def build(self, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        """Build the model through ``timm.create_model``.

        Args:
            pretrained: start from the base's pretrained weights.
            **kwargs: further arguments of the base, over ``model_args``.

        Raises:
            UserError: an unknown base, site or option, a base that has pools already or can't have any.
            TypeError: an argument that the base doesn't take.
            RuntimeError: an unknown pretrained tag, or no pretrained weights where they are wanted.
        """
        check_base(self.base)
        return create_model(self.model_name, pretrained=pretrained, **{**self.create_args, **kwargs})

    def macs(self, input_size: tuple[int, int, int] | None = None) -> int:
        """Cost of one image in MACs; nothing is allocated.

        Args:
            input_size: (channels, height, width) in pixels; None takes the model's own.

        Raises:
            UserError: as :meth:`build`.
            TypeError: as :meth:`build`.
            RuntimeError: an unknown pretrained tag, or the model doesn't run on this input size.
        """
        with on_meta():
            model = self.build()
        return count_macs(model, input_size)

    def __str__(self) -> str:
        """What is pooled, dropped and replaced, and what that costs, a line each."""
        base = dataclasses.replace(self, pools=(), drops=(), pool_options={}, replaces={}).macs()
        own = self.macs()
        replaced = [f"replaces {name}{_as_text(options)}" for name, options in self.replaces.items()]
        return "\n".join(
            (
                f"base   {self.base}{_as_text(self.model_args)}",
                f"pools  {', '.join(self.pools) or 'none'}{_as_text(self.pool_options)}",
                f"drops  {', '.join(self.drops) or 'none'}",
                *replaced,
                f"MACs   {format_macs(own)}, {own / base:.2f}x the base's {format_macs(base)}",
            )
        )

    def to_json(self) -> str:
        """One line of JSON, with sorted keys: equal architectures give equal text, as they always did."""
        values = dataclasses.asdict(self)
        return json.dumps(
            values if self.replaces else {k: v for k, v in values.items() if k != "replaces"}, sort_keys=True
        )

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Read what :meth:`to_json` wrote.

        Raises:
            UserError: not JSON, or not the fields of an architecture.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"an architecture must be JSON: {error}") from error
        fields = [f.name for f in dataclasses.fields(cls)]
        if not isinstance(values, dict) or "base" not in values or not set(values) <= set(fields):
            raise UserError(f"an architecture is a JSON object with the keys {listed(fields)}; got {text[:80]!r}")
        return cls(**values)


def _as_text(options: Mapping[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in options.items())
