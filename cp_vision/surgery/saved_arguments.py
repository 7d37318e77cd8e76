"""What timm writes down of a model that was changed, so that ``save_for_hf`` saves what loads again."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from timm.models import is_model
from timm.models._input import update_model_args

from ..anatomy.block import CHILD, DroppedBlock
from ..layers.context_pool_2d import ContextPool2d

__all__ = ["note_changes"]


class MixedOptions:
    """Stands for the options of pools that differ among them, which the arguments of a model can't say.

    It is no JSON value, so that timm refuses to save such a model rather than to save another one.
    """


def note_changes(model: Any, pool_options: Mapping[str, Any] | None = None) -> None:
    """Note pools and drops in the architecture and arguments that timm keeps of a model of its own.

    Args:
        model: a model that pools were inserted into, or blocks left out of; not timm's, it is left alone.
        pool_options: the options of the pools that were inserted last, None if none were.
    """
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict) or "architecture" not in cfg:
        return
    args = dict(getattr(model, "_model_args", {}))
    modules = list(model.named_modules())
    noted: dict[str, Any] = {
        "pools": [name.removesuffix(f".{CHILD}") for name, module in modules if isinstance(module, ContextPool2d)],
        "drops": [name for name, module in modules if isinstance(module, DroppedBlock)],
    }
    if pool_options is not None:
        options, known = _told(pool_options), args.get("pool_options") or {}
        if isinstance(known, MixedOptions) or (args.get("pools") and _told(known) != options):
            noted["pool_options"] = MixedOptions()
        elif options or known:
            noted["pool_options"] = options
    name = cfg["architecture"]
    if name != "context_pooled" and not name.startswith("cp_"):
        known_name = is_model(f"cp_{name}")
        if not known_name:
            noted["base"] = name
        # A dictionary of its own: timm may share it among models.
        model.pretrained_cfg = model.default_cfg = {
            **cfg,
            "architecture": f"cp_{name}" if known_name else "context_pooled",
        }
    update_model_args(model, **noted)


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without those that are as they are anyway."""
    parameters = signature(ContextPool2d).parameters
    return {name: value for name, value in options.items() if value != parameters[name].default}
