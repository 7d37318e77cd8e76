"""What timm writes down of a model that was changed, so that ``save_for_hf`` saves what loads again."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from timm.models import is_model

from ..anatomy.block import CHILD, DroppedBlock
from ..anatomy.replacement import Replacement, RestOfRun
from ..layers.context_pool_2d import ContextPool2d

__all__ = ["note_changes"]


def note_changes(model: Any, inserted: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Note pools, drops and replacements in the architecture and arguments that timm keeps of a model of its own.

    Pools of equal options are noted as ``pools=[site, ...], pool_options={...}``, others as
    ``pools={site: {...}, ...}``; :func:`cp_vision.models.build.build_context_pooled` takes both. Replacements are
    noted as ``replaces={run: {...}, ...}``.

    Args:
        model: a model that was changed; not timm's, it is left alone.
        inserted: the pools that were inserted last, the options by site.
    """
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict) or "architecture" not in cfg:
        return
    args = dict(getattr(model, "_model_args", {}))
    modules = list(model.named_modules())
    suffix = f".{CHILD}"
    sites = [n.removesuffix(suffix) for n, part in modules if n.endswith(suffix) and isinstance(part, ContextPool2d)]
    options = {site: _options_of(site, args) for site in sites}
    options |= {site: _without_defaults(own) for site, own in (inserted or {}).items()}
    first = options[sites[0]] if sites else _without_defaults(args.get("pool_options") or {})
    dropped = (name for name, part in modules if isinstance(part, DroppedBlock) and not isinstance(part, RestOfRun))
    noted: dict[str, Any] = {"drops": list(dropped)}
    if replaced := {part.name: part.options for _, part in modules if isinstance(part, Replacement)}:
        noted["replaces"] = replaced
    args.pop("replace_options", None)
    if all(own == first for own in options.values()):
        noted |= {"pools": sites, "pool_options": first}
    else:
        noted |= {"pools": options, "pool_options": {}}
    if not noted["pool_options"] and not args.get("pool_options"):
        del noted["pool_options"]
    name = cfg["architecture"]
    if name != "context_pooled" and not name.startswith("cp_"):
        known_name = is_model(f"cp_{name}")
        if not known_name:
            noted["base"] = name
        # A dictionary of its own, since timm may share it among models.
        model.pretrained_cfg = model.default_cfg = {
            **cfg,
            "architecture": f"cp_{name}" if known_name else "context_pooled",
        }
    # timm's own record of what was changed after construction; it has no public function to write it.
    model._model_args = {**args, **noted}


def _options_of(site: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a pool that stands already, as noted when it was inserted."""
    pools = args.get("pools")
    own = pools.get(site, {}) if isinstance(pools, Mapping) else {}
    return _without_defaults({**(args.get("pool_options") or {}), **own})


def _without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that differ from a pool's defaults."""
    parameters = signature(ContextPool2d).parameters
    return {name: value for name, value in options.items() if value != parameters[name].default}
