"""What a search by fitted stand-ins can reach and takes, told before anything is fitted to all images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cp_vision import Snapshot
from cp_vision.fitting.batches import Batches
from cp_vision.fitting.fit_places import fit_places

from .budget import Budget, check_reachable, least_cost
from .build import sized
from .explore import TRIES
from .images import FitImages, Images
from .kinds import DEFAULT_KINDS, kinds_of
from .library import base_costs, fitted_block, options_of
from .offers import offers
from .places import MAX_RUN, find_spots
from .scores import Scores
from .workbench import RECALIBRATION, Workbench

__all__ = ["Forecast", "forecast"]

# Passes over the held-out images for each budget: tries of three choices, of which the first half is not run again.
_CHOICES = 3
# Where scores of another search choose, about so many of the stand-ins are fitted.
_FITTED = 0.25


@dataclass(frozen=True)
class Forecast:
    """What a search will take.

    Attributes:
        base_macs: of one image.
        base_params: of the base.
        blocks: how many the base has.
        places: runs of blocks and halves of blocks that may be changed.
        options: what may take them, leaving out included.
        least: the smallest share of the base that can be met, in the measure of the budgets; None of latencies, which
            aren't measured yet.
        library_seconds: fitting and scoring the options, once for all budgets.
        budget_seconds: choosing, fitting again and scoring on the test images, for each budget; without distillation.
    """

    base_macs: int
    base_params: int
    blocks: int
    places: int
    options: int
    least: float | None
    library_seconds: float
    budget_seconds: float


def forecast(
    model: nn.Module, images: Any, budgets: Sequence[Budget], limit: int, test_images: int, known: Scores | None = None
) -> Forecast:
    """Time the base and the options of a block in the middle on some images, and tell what all will take.

    Args:
        model: the base, in eval mode; left untouched.
        images: as for :func:`cp_vision.search.compress`.
        budgets: of one measure.
        limit: images at most.
        test_images: that models are scored on.
        known: scores of another search, by which options are chosen before they are fitted.

    Raises:
        UserError: scores of another base, images or model are unfit, or a budget can't be met.
    """
    kinds, measure = kinds_of(DEFAULT_KINDS), budgets[0].measure
    of_images = Images(images, model, limit)
    bench = Workbench(sized(model, of_images), of_images)
    spots = find_spots(bench.model, MAX_RUN)
    costs, options, blocks = base_costs(bench.model), options_of(bench, spots, kinds, known), len(bench.blocks)
    least = None
    if measure != "latency":
        check_reachable(budgets, costs, options, blocks)
        least = least_cost(measure, costs, options, blocks) / costs[measure]
    held_out = sum(map(len, of_images.held_out))
    image = _seconds_of_image(bench.model, of_images)
    middle = spots[len(spots) // 2].first
    here = [spot for spot in spots if spot.first == middle]
    with Snapshot(bench.model):
        made = [fitted_block(offer) for offer in offers(bench.model, here, kinds) if offer.stand_in is not None]
        begin = time.perf_counter()
        few = FitImages(of_images, 64)
        fit_places(bench.model, made, Batches(few, bench.model))
        fit = time.perf_counter() - begin
    fitted = of_images.count - held_out
    # Stand-ins of many places are fitted in one pass of the base.
    own = max(0.0, fit - image * min(64, fitted))
    of_option = own / max(1, len(made)) * max(1.0, fitted / 64)
    # Half of a model is run for the score of a change in its middle.
    recalibration = RECALIBRATION if bench.has_norms else 0
    of_score = image * (min(32, held_out) + recalibration) / 2
    stand_ins = sum(option.kind != "drop" for option in options)
    library = image * fitted + stand_ins * of_option + len(options) * of_score
    if known is not None:
        library = TRIES * image * fitted + _FITTED * stand_ins * of_option
    of_choice = image * (TRIES * (held_out + recalibration) / 2 + 3 * fitted + test_images)
    return Forecast(
        base_macs=costs["macs"],
        base_params=costs["params"],
        blocks=blocks,
        places=len(spots),
        options=len(options),
        least=least,
        library_seconds=library,
        budget_seconds=_CHOICES * of_choice,
    )


@torch.inference_mode()
def _seconds_of_image(model: nn.Module, images: Images) -> float:
    batch, times = images.held_out[0], []
    for _ in range(3):
        begin = time.perf_counter()
        model(batch)
        times.append(time.perf_counter() - begin)
    return sorted(times)[1] / len(batch)
