"""Models made of candidates."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from timm.models import is_model
from torch import nn

from cp_vision import Architecture, UserError
from cp_vision.cost.input_size import input_size_of
from cp_vision.fitting.fit_blocks import fit_blocks
from cp_vision.surgery.saved_arguments import note_changes

from .images import Images
from .kinds import DROP
from .library import Library
from .option import Candidate
from .workbench import put

__all__ = ["architecture_of", "build", "refit", "sized", "with_changes"]


def build(library: Library, candidate: Candidate) -> nn.Module:
    """The model of a candidate, in eval mode, with the library's stand-ins; BatchNorms recalibrated."""
    model = copy.deepcopy(library.bench.model)
    put(model, library.changes(candidate, model))
    if candidate:
        note_changes(model)
        library.bench.recalibrate(model)
    return model


def refit(library: Library, model: nn.Module, images: Any, steps: int = 0) -> nn.Module:
    """A copy whose stand-ins are fitted again, front to back, to what comes out of those before them.

    Args:
        library: of the base.
        model: of a candidate, with a stand-in at least.
        images: to fit to, as for :func:`cp_vision.fit_blocks`.
        steps: of local training, see there.
    """
    refitted = copy.deepcopy(model)
    fit_blocks(refitted, library.bench.model, images, steps=steps, recalibrate=False)
    library.bench.recalibrate(refitted)
    return refitted


def sized(model: Any, images: Images) -> nn.Module:
    """A copy of a base, in eval mode, that says the size of these images.

    Raises:
        UserError: it is made for another size.
    """
    model = copy.deepcopy(model).eval()
    cfg = getattr(model, "pretrained_cfg", None)
    try:
        if input_size_of(model) == images.size:
            return model
    except UserError:
        # It doesn't say; the images do.
        cfg = cfg if isinstance(cfg, Mapping) else {}
    if isinstance(cfg, Mapping):
        model.pretrained_cfg = {**cfg, "input_size": images.size}
        if hasattr(model, "default_cfg"):
            model.default_cfg = model.pretrained_cfg
    if (own := input_size_of(model)) != images.size:
        raise UserError(f"images are {images.size}, the model takes {own} (channels, height, width); resize them")
    return model


def architecture_of(base: Any, candidate: Candidate, size: tuple[int, int, int], macs: int) -> Architecture | None:
    """The candidate as a value; None where the base is none of timm's, or not as timm builds it.

    Args:
        base: the base.
        candidate: what is changed.
        size: of the images.
        macs: of the candidate's model, which that of the architecture must have, too.
    """
    cfg = getattr(base, "pretrained_cfg", None)
    name = cfg.get("architecture") if isinstance(cfg, Mapping) else None
    if not name or not is_model(name) or name.startswith("cp_") or name == "context_pooled":
        return None
    args = dict(getattr(base, "_model_args", {}))
    for own in ("num_classes", "in_chans"):
        if isinstance(getattr(base, own, None), int):
            args[own] = getattr(base, own)
    try:
        architecture = with_changes(Architecture(name, model_args=args), candidate)
        with_same_cost = architecture.macs(size) == macs
    except (UserError, TypeError, RuntimeError):
        return None
    return architecture if with_same_cost else None


def with_changes(base: Architecture, candidate: Candidate) -> Architecture:
    """A base with what a candidate changes, as a value."""
    drops = tuple(path for option in candidate if option.kind == DROP for path in option.blocks)
    replaces = {option.place: option.options for option in candidate if option.kind != DROP}
    return dataclasses.replace(base, drops=drops, replaces=replaces)
