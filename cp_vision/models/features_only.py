"""``features_only=True``: a pooled model in the wrapper that timm puts around its base."""

from __future__ import annotations

from typing import Any

from timm.models import FeatureDictNet, FeatureGraphNet, FeatureHookNet
from timm.models._features import FeatureGetterNet
from torch import nn

from ..shared.errors import UserError

__all__ = ["can_wrap", "wrap_features"]


def can_wrap(like: Any) -> bool:
    """Whether :func:`wrap_features` knows this wrapper."""
    return isinstance(like, FeatureGetterNet | FeatureDictNet | FeatureHookNet | FeatureGraphNet)


def wrap_features(model: Any, like: Any) -> nn.Module:
    """Wrap a model as timm wrapped another of the same base.

    Args:
        model: the model, with its pools and drops.
        like: what ``timm.create_model(base, features_only=True)`` gave, on any device.

    Raises:
        UserError: a wrapper that takes a model apart (``feature_cls="cls"``).
    """
    options: dict[str, Any] = {"out_indices": like.feature_info.out_indices}
    if isinstance(like, FeatureGetterNet):
        options |= {"norm": like.norm, "output_fmt": like.output_fmt}
    elif isinstance(like, FeatureGraphNet):
        options |= {"output_fmt": like.output_fmt}
    elif isinstance(like, FeatureDictNet | FeatureHookNet):
        # Flattened, the wrapper holds the members of the base's Sequentials under names of its own.
        whole = set(like) <= {"body", *(name for name, _ in model.named_children())}
        options |= {"output_fmt": like.output_fmt, "flatten_sequential": not whole}
    else:
        raise UserError(
            f"features_only of {type(like).__name__} rebuilds the model without its pools; take feature_cls='getter', "
            "'hook' or 'fx'"
        )
    features: Any = type(like)(model, **options)
    for name in ("pretrained_cfg", "default_cfg", "in_chans", "_traits"):
        if name in vars(like):
            setattr(features, name, getattr(like, name))
    return features
