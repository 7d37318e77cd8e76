"""What fitting costs beside running the base: time, and the peak memory of a process of its own."""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.elpv import elpv_images
from benchmarks.trained_models import dinov2_vit_small
from cp_vision import Snapshot
from cp_vision.anatomy.places import find_places
from cp_vision.anatomy.token_grid import TokenGrid
from cp_vision.fitting.batches import Batches
from cp_vision.fitting.fit_places import fit_places
from cp_vision.fitting.fitted_block import FittedBlock
from cp_vision.surgery.replace_blocks import make_replacement

__all__ = ["Cost", "fitting_cost"]

_IMAGES, _BATCH, _TURNS = 256, 32, 3


class Cost(NamedTuple):
    """Cost of fitting all single-block stand-ins of ViT-S/14 at 112 px, a row of ``replacement_cost.csv``.

    Attributes:
        form: of the stand-ins.
        evaluation_s: time of the base's forward passes over the images, in seconds.
        fit_s: time of fitting, solving and those passes included.
        time_ratio: median over paired turns of one by the other.
        evaluation_mib: peak memory of a process that runs the base, in MiB.
        fit_mib: of one that fits.
        memory_ratio: one by the other.
    """

    form: str
    evaluation_s: float
    fit_s: float
    time_ratio: float
    evaluation_mib: float
    fit_mib: float
    memory_ratio: float


def fitting_cost() -> Iterator[Cost]:
    """Measure, the two taking turns; all stand-ins are fitted in one pass of the base."""
    model, images = _model_and_images()
    for form, options in (("map", {"pool": False}), ("Gaussian and map", {})):
        times = []
        for _ in range(_TURNS):
            times.append((_seconds(_evaluate, model, images), _seconds(_fit, model, images, options)))
        ratio = statistics.median(fit / evaluation for evaluation, fit in times)
        evaluation_s, fit_s = (statistics.median(column) for column in zip(*times, strict=True))
        evaluation_mib, fit_mib = _peak(None), _peak(options)
        yield Cost(form, evaluation_s, fit_s, ratio, evaluation_mib, fit_mib, fit_mib / evaluation_mib)


def _model_and_images() -> tuple[Any, torch.Tensor]:
    model: Any = dinov2_vit_small(112)
    return model, elpv_images(112, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])[:_IMAGES].clone()


@torch.no_grad()
def _evaluate(model: Any, images: torch.Tensor) -> None:
    for batch in images.split(_BATCH):
        model(batch)


def _fit(model: Any, images: torch.Tensor, options: dict[str, Any]) -> None:
    with Snapshot(model), torch.no_grad():
        tokens = functools.cache(lambda: TokenGrid(model))
        places = find_places(model, [f"blocks.{i}" for i in range(12)])
        stand_ins = [make_replacement(model, place, options, tokens) for place in places]
        fitted = [FittedBlock(place.modules[0], made) for place, made in zip(places, stand_ins, strict=True)]
        fit_places(model, fitted, Batches(images, model))


def _seconds(function: Callable[..., None], *arguments: Any) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def _peak(options: dict[str, Any] | None) -> float:
    """MiB of a new process that evaluates, or fits with options."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (options,))


def _peak_here(options: dict[str, Any] | None) -> float:
    model, images = _model_and_images()
    # From here on, since reading all images of the set takes more than either.
    Path("/proc/self/clear_refs").write_text("5")
    if options is None:
        _evaluate(model, images)
    else:
        _fit(model, images, options)
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024
