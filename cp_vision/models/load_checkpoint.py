"""Checkpoints that somebody names: timm's own builder loads the base's; what was added is loaded after surgery.

A checkpoint's keys alone say how it is read. Its ``<site>.context_pool.*`` and ``<block>.context_pool_block.*`` keys
are set aside, and where it lacks what is left out or replaced (it was written by us), those keys are filled in, since
nothing of them is kept. What remains is a checkpoint of the plain base, under its names or under those of whoever
trained it, which timm knows how to fit to heads, channels and image sizes of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models import PretrainedCfg, load_pretrained
from torch import Tensor, nn

from ..anatomy.block import CHILD
from ..anatomy.replacement import REPLACEMENT
from ..shared.errors import UserError, listed, one_line

__all__ = ["NamedCheckpoint", "names_checkpoint"]

# What stands in the keys of all that is added to a base.
_ADDED = (f".{CHILD}.", f".{REPLACEMENT}.")


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
        added: weights of pools and stand-ins.

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
        self.added = {key: value for key, value in found.items() if _owner(key)}
        self.base = {key: value for key, value in found.items() if key not in self.added}

    def build(self, make_base: Callable[..., Any], gone: Sequence[str]) -> Any:
        """Build the plain base with its weights.

        Args:
            make_base: builds it; takes ``pretrained`` and, over the configuration, ``pretrained_cfg_overlay``.
            gone: blocks that will be left out, and runs of blocks and halves that will be replaced.

        Raises:
            UserError: weights that don't fit the base.
        """
        if self.added or gone:
            with torch.device("meta"):
                own = make_base(pretrained=False).state_dict()
            names = [name for one in gone for name in _names_of(one, own)]
            lacking = tuple(f"{name}." for name in names if not any(key.startswith(f"{name}.") for key in self.base))
            filled = (key for key in own if lacking and key.startswith(lacking))
            self.base |= {key: torch.zeros(own[key].shape, dtype=own[key].dtype) for key in filled}
            if self.added:
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

    def ranks(self) -> dict[str, int]:
        """Ranks of the stand-ins that it holds, by the block or half where each stands."""
        found, end = {}, f".{REPLACEMENT}.read_out"
        for key, down in self.added.items():
            name, _, last = key.rpartition(".")
            if name.endswith(end) and last == "down":
                up = self.added.get(f"{name}.up")
                # Without a waist a map has as many rows as channels.
                found[name.removesuffix(end)] = (down if up is None else up.mT).shape[0]
        return found

    def load_added(self, model: nn.Module) -> None:
        """Load what was added. A pool or stand-in that the checkpoint lacks as a whole keeps its initial values.

        Raises:
            UserError: weights of other pools or stand-ins.
        """
        if not self.added:
            return
        sites = {_owner(key) for key in self.added}
        own = {key: value for key, value in model.state_dict().items() if _owner(key) in sites}
        self._check(own, self.added)
        try:
            model.load_state_dict(self.added, strict=False)
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


_REFUSED = "the checkpoint is not one of this architecture (same base, pools, drops and replacements?)"


def _owner(key: str) -> str:
    """The site of the pool, or the block of the stand-in, that a key belongs to; of the base's keys nothing."""
    return next((key.partition(mark)[0] for mark in _ADDED if mark in key), "")


def _names_of(gone: str, keys: Iterable[str]) -> list[str]:
    """Names of what is left out or replaced: of a run all its blocks, as neighbours in the order of a state dict."""
    first, colon, last = gone.partition(":")
    if not colon:
        return [gone]
    row = first.rpartition(".")[0]
    depth = row.count(".") + 2
    inside = [key for key in keys if key.startswith(f"{row}.")]
    names = list(dict.fromkeys(".".join(key.split(".")[:depth]) for key in inside))
    return names[names.index(first) : names.index(last) + 1] if {first, last} <= set(names) else [gone]
