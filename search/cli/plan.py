"""What a search will take, told before anything is trained: the size of the space, costs, time and disk."""

from __future__ import annotations

import itertools
import math
import os
import time
from dataclasses import dataclass

import torch

from ...recipes.evaluation.evaluate import evaluate
from ...recipes.training.trainer import Trainer
from ..config.schema import SearchConfig
from ..context import SearchContext
from ..evaluators.train import TrainEvaluator
from ..space.size import count_candidates

__all__ = ["Forecast", "at_a_time", "forecast"]

_LONG = 10.0


@dataclass(frozen=True)
class Forecast:
    """What a search will take.

    Attributes:
        size: candidates in the space, over the budget or not.
        epoch_seconds: an epoch of the base's training, on this device.
        score_seconds: scoring the base on the held-out part.
        candidate_seconds: training and scoring the base; others cost about their share of its MACs.
        hours: all candidates and finalists trained to their end, the tightest budget's share of the base's time each.
        disk: bytes of weights that are kept, with their copies in folders, and of the states of trainings.
    """

    size: int
    epoch_seconds: float
    score_seconds: float
    candidate_seconds: float
    hours: float
    disk: int


def forecast(context: SearchContext) -> Forecast:
    """Tell what the whole takes from an update of the base, or two, and the score of a batch. Writes nothing."""
    trainer, recipe, config = TrainEvaluator.of(context), context.recipe, context.config
    model = trainer.build(context.space.base)
    loader = trainer.training_loader(model)
    updates = Trainer(model, recipe, loader, trainer.processes)
    update = _seconds_of(updates)
    if update < _LONG:
        # The first one is slower than those that follow.
        update = _seconds_of(updates)
    batches = trainer.scoring_loader(model, context.held_out)
    size = recipe.validation_batch_size or recipe.batch_size
    began = time.perf_counter()
    full = (batch for batch in batches if len(batch[1]))
    evaluate(model, itertools.islice(full, 1), trainer.processes, recipe)
    score = (time.perf_counter() - began) * max(1.0, len(context.held_out) / size)
    epoch = update * loader.updates
    candidate = 0.0 if config.evaluator == "sensitivity" else epoch * updates.epochs + score
    # All budgets hold, so the tightest tells.
    within = min([1.0, *(limit.most / limit.base for limit in context.space.limits)])
    parallel, repeats = at_a_time(config), len(config.further_seeds)
    # Finalists and their counterparts without pools, which may not have been tried yet, and the base.
    again = candidate * (repeats * (1 + 2 * config.finalists * within) + config.finalists * within) / parallel
    if config.evaluator == "supernet":
        # Four forward passes an update, then a score for each candidate and a training for each finalist.
        shared = 4 * epoch * (config.supernet_epochs or updates.epochs)
        # In one process; scores and finalists may be spread.
        total = shared + config.trials * score / parallel + again
    elif config.evaluator == "sensitivity":
        total = score * (1 + sum(block.droppable for block in context.space.blocks))
    else:
        total = (candidate + (config.trials - 1) * candidate * within) / parallel + again
    params = context.space.base_costs["params"] + sum(
        max(costs["params"].pool.values(), default=0.0) for costs in context.space.costs.values()
    )
    folders = 2 * (config.keep_checkpoints + 3) + parallel + 2 * (config.finalists + 1) * repeats
    if candidate:
        # A state and the one before it, each with weights, averaged ones, and two numbers of the optimiser's for each.
        folders += 2 * 4 * parallel
    size_of_space = count_candidates(context.space)
    return Forecast(size_of_space, epoch, score, candidate, total / 3600, int(4 * params * folders))


def at_a_time(config: SearchConfig) -> int:
    """How many candidates are tried at a time, as far as this machine has room for them; at least 1."""
    asked = config.parallel
    if config.executor != "ray" or config.address is not None:
        # How large a cluster is isn't known here.
        return asked or 1
    room = (os.cpu_count() or 1) / config.cpus if config.cpus else math.inf
    if config.gpus:
        room = min(room, torch.cuda.device_count() / config.gpus)
    return max(1, int(min(room if asked is None else asked, room, config.trials)))


def _seconds_of(updates: Trainer) -> float:
    began = time.perf_counter()
    updates.one_update()
    return time.perf_counter() - began
