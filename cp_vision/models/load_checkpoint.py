"""Checkpoints that somebody names: timm's own builder loads the base's weights; the pools' are loaded after surgery.

A checkpoint's keys alone say how it is read. Its ``<site>.context_pool.*`` keys are set aside, and where it lacks the
blocks that are left out (it was written by us), those are filled in, since nothing of them is kept. What remains is a
checkpoint of the plain base, under its names or under those of whoever trained it, which timm knows how to fit to
heads, channels and image sizes of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models import PretrainedCfg, load_pretrained
from torch import Tensor, nn

from ..anatomy.block import CHILD
from ..shared.errors import UserError, listed, one_line

__all__ = ["NamedCheckpoint", "names_checkpoint"]


def names_checkpoint(cfg: PretrainedCfg) -> bool:
    """Whether the weights are those of somebody's checkpoint, which may hold pools, and not a base's own."""
    return not cfg.custom_load and bool(cfg.source or cfg.file or cfg.state_dict)


class NamedCheckpoint:
    """A checkpoint, read, in two parts.

    Args:
        cfg: says where it lies, and what it classifies.
        cache_dir: where timm keeps what it downloads.
        strict: whether each key has to fit, but for the head's.

    Attributes:
        base: weights of the plain base.
        pools: weights of the pools.

    Raises:
        OSError: there is no such file.
        RuntimeError: it can't be read.
    """

    def __init__(self, cfg: PretrainedCfg, cache_dir: str | Path | None, strict: bool) -> None:
        self.cfg, self.strict = cfg, strict
        found: dict[str, Tensor] = {}

        def keep(state_dict: Mapping[str, Tensor], _: nn.Module) -> dict[str, Tensor]:
            found.update(state_dict)
            return {}

        # timm has no function that reads from wherever a configuration says, but one that loads from there.
        sources = {**cfg.to_dict(), "classifier": None, "first_conv": None}
        load_pretrained(nn.Module(), sources, filter_fn=keep, cache_dir=cache_dir)
        self.pools = {key: value for key, value in found.items() if f".{CHILD}." in key}
        self.base = {key: value for key, value in found.items() if key not in self.pools}

    def build(self, make_base: Callable[..., Any], drops: Sequence[str]) -> Any:
        """Build the plain base with its weights.

        Args:
            make_base: builds it; takes ``pretrained`` and, over the configuration, ``pretrained_cfg_overlay``.
            drops: blocks that will be left out.

        Raises:
            UserError: weights that don't fit the base.
        """
        lacking = tuple(f"{name}." for name in drops if not any(key.startswith(f"{name}.") for key in self.base))
        if self.pools or lacking:
            with torch.device("meta"):
                own = make_base(pretrained=False).state_dict()
            filled = (key for key in own if lacking and key.startswith(lacking))
            self.base |= {key: torch.zeros(own[key].shape, dtype=own[key].dtype) for key in filled}
            if self.pools:
                # We wrote it, under timm's names. Where the classes differ, timm would not mind wrong keys.
                self._check(own, self.base)
        overlay = {"state_dict": self.base, "source": None, "file": None}
        try:
            model = make_base(pretrained=True, pretrained_cfg_overlay=overlay)
        except RuntimeError as error:
            raise self._refusal(error) from error
        cfg = {key: value for key, value in model.pretrained_cfg.items() if key != "state_dict"}
        kept = {key: getattr(self.cfg, key) for key in ("source", "file") if getattr(self.cfg, key) is not None}
        model.pretrained_cfg = model.default_cfg = {**cfg, **kept}
        return model

    def load_pools(self, model: nn.Module) -> None:
        """Load the pools' weights. A pool that the checkpoint lacks as a whole keeps its initial values.

        Raises:
            UserError: weights of other pools.
        """
        if not self.pools:
            return
        sites = {key.partition(f".{CHILD}.")[0] for key in self.pools}
        own = {key: value for key, value in model.state_dict().items() if key.partition(f".{CHILD}.")[0] in sites}
        self._check({key: value for key, value in own.items() if f".{CHILD}." in key}, self.pools)
        try:
            model.load_state_dict(self.pools, strict=False)
        except RuntimeError as error:
            raise self._refusal(error) from error

    def _check(self, own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        heads = (self.cfg.classifier,) if isinstance(self.cfg.classifier, str) else self.cfg.classifier or ()
        heads = tuple(f"{head}." for head in heads)
        missing = [key for key in own if key not in given and not key.startswith(heads)]
        unexpected = [key for key in given if key not in own and not key.startswith(heads)]
        if self.strict and (missing or unexpected):
            raise UserError(f"{_REFUSED}: missing {listed(missing, 3)}; unexpected {listed(unexpected, 3)}")

    def _refusal(self, error: RuntimeError) -> Exception:
        """What to raise for an error of timm's or torch's."""
        text = one_line(error)
        return UserError(f"{_REFUSED}: {text}") if "state_dict" in text else error


_REFUSED = "the checkpoint is not one of this architecture (same base, pools and drops?)"
