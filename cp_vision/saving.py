"""What timm writes down of a model that was changed, so that ``save_for_hf`` saves what loads again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from timm.models import is_model
from timm.models._input import update_model_args

__all__ = ["note_changes"]


class MixedOptions:
    """Stands for the options of pools that differ among them, which the arguments of a model can't say.

    It is no JSON value, so that timm refuses to save such a model rather than to save another one.
    """


def note_changes(
    model: Any, pools: Iterable[str] = (), drops: Iterable[str] = (), pool_options: Mapping[str, Any] | None = None
) -> None:
    """Note pools and drops in the architecture and arguments that timm keeps of a model of its own.

    Args:
        model: a model that pools were inserted into, or blocks left out of; not timm's, it is left alone.
        pools: sites that were added.
        drops: blocks that were left out.
        pool_options: the options of these pools.
    """
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict) or "architecture" not in cfg:
        return
    args = dict(getattr(model, "_model_args", {}))
    noted: dict[str, Any] = {
        "pools": [*args.get("pools", ()), *pools],
        "drops": [*args.get("drops", ()), *drops],
    }
    options = dict(pool_options or {})
    if list(pools):
        known = args.get("pool_options", options if not args.get("pools") else {})
        if known != options:
            noted["pool_options"] = MixedOptions()
        elif options:
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
