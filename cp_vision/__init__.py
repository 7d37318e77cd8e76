"""ContextPool for timm: pooling layers, model surgery and ``cp_*`` models. Importing registers the models.

Source: the pool is that of Huang et al., Efficient Representation Learning via Adaptive Context Pooling, ICML 2022,
arXiv 2207.01844; docstrings say where it is our reading of the paper or our extension. Sites, surgery, dropping blocks
and counting are our own.
"""

from .anatomy.sites import Site, find_sites
from .cost.macs import count_macs, pool_macs
from .layers.context_pool_1d import ContextPool1d
from .layers.context_pool_2d import ContextPool2d
from .models import cp_models, torchvision_models
from .models.architecture import Architecture
from .pooling.context_pool import context_pool
from .shared.errors import UserError
from .surgery.drop_blocks import drop_blocks
from .surgery.insert_pools import insert_pools

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "ContextPool1d",
    "ContextPool2d",
    "Site",
    "UserError",
    "context_pool",
    "count_macs",
    "cp_models",
    "drop_blocks",
    "find_sites",
    "insert_pools",
    "pool_macs",
    "torchvision_models",
]
