"""ContextPool for timm: pooling layers, model surgery and ``cp_*`` models.

Importing the package registers the models, in timm and torchvision once these are imported; its own modules are
imported when a name is first used, so that commands answer before torch is there.

Source: the pool is that of Huang et al., Efficient Representation Learning via Adaptive Context Pooling, ICML 2022,
arXiv 2207.01844; docstrings say where it is our reading of the paper or our extension. Sites, surgery, dropping blocks
and counting are our own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .shared.errors import UserError
from .shared.on_import import import_after

if TYPE_CHECKING:
    from .anatomy.known_families import register_family
    from .anatomy.sites import Site, find_sites
    from .cost.macs import count_macs, pool_macs
    from .fitting.fit_blocks import fit_blocks
    from .layers.context_pool_1d import ContextPool1d
    from .layers.context_pool_2d import ContextPool2d
    from .layers.context_pool_block import ContextPoolBlock
    from .models import cp_models, torchvision_models
    from .models.architecture import Architecture
    from .pooling.context_pool import context_pool
    from .surgery.drop_blocks import drop_blocks
    from .surgery.insert_pools import insert_pools
    from .surgery.replace_blocks import replace_blocks
    from .surgery.snapshot import Snapshot
    from .surgery.stand_ins import register_stand_in

__version__ = "0.2.0"

__all__ = [
    "Architecture",
    "ContextPool1d",
    "ContextPool2d",
    "ContextPoolBlock",
    "Site",
    "Snapshot",
    "UserError",
    "context_pool",
    "count_macs",
    "cp_models",
    "drop_blocks",
    "find_sites",
    "fit_blocks",
    "insert_pools",
    "pool_macs",
    "register_family",
    "register_stand_in",
    "replace_blocks",
    "torchvision_models",
]

_HOMES = {
    "Architecture": "models.architecture",
    "ContextPool1d": "layers.context_pool_1d",
    "ContextPool2d": "layers.context_pool_2d",
    "ContextPoolBlock": "layers.context_pool_block",
    "Site": "anatomy.sites",
    "Snapshot": "surgery.snapshot",
    "context_pool": "pooling.context_pool",
    "count_macs": "cost.macs",
    "drop_blocks": "surgery.drop_blocks",
    "find_sites": "anatomy.sites",
    "fit_blocks": "fitting.fit_blocks",
    "insert_pools": "surgery.insert_pools",
    "pool_macs": "cost.macs",
    "register_family": "anatomy.known_families",
    "register_stand_in": "surgery.stand_ins",
    "replace_blocks": "surgery.replace_blocks",
}
_MODULES = {"cp_models": "models.cp_models", "torchvision_models": "models.torchvision_models"}

import_after("timm", "cp_vision.models.cp_models")
import_after("torchvision", "cp_vision.models.torchvision_models")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
