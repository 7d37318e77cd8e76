"""Training one model: updates with timm's task, optimisers, schedulers and averaged weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from timm.models import model_parameters
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.utils import ModelEmaV3, dispatch_clip_grad, distribute_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cp_vision.anatomy.block import DroppedBlock

from ..data.seeding import seed_all
from ..data.training_loader import TrainingLoader
from ..models import load_teacher
from ..precision import amp_type, autocast
from ..processes import Processes
from ..recipe.keys import Recipe
from .task import make_task

__all__ = ["MAX_SKIPPED", "Trainer", "TrainingError", "train", "train_on"]

MAX_SKIPPED = 10
"""Updates in a row that may be skipped since their loss is not finite."""


class TrainingError(RuntimeError):
    """Training can't go on; the message says why in one line."""


class Trainer:
    """A training by a recipe, which can be put down after any update and taken up again.

    Args:
        model: the model; moved to the device and trained in place.
        recipe: the recipe.
        loader: its training loader.
        processes: this process.
        teacher_weights: for distillation, load the teacher's weights; without, the updates are for measuring only.

    Attributes:
        model: the model, in no wrapper.
        averaged: with ``model_ema``, the model of averaged weights.
        epoch: epochs that are done.
        update: updates that are done in this epoch.
        last_lr: learning rate at the end of the last epoch.
        skipped: updates that were skipped since their loss was not finite.

    Raises:
        UserError: the model can't do what the recipe says (gradient checkpointing), a teacher that can't be had.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        loader: TrainingLoader,
        processes: Processes,
        teacher_weights: bool = True,
    ) -> None:
        self.recipe, self.loader, self.processes = recipe, loader, processes
        teacher = load_teacher(recipe, model.num_classes, teacher_weights)
        self.model, self.task = make_task(model, recipe, processes, teacher)
        # What a forward pass changes, even one whose loss is not finite.
        norms = [module for module in self.model.modules() if isinstance(module, _BatchNorm)]
        self.running = [buffer for norm in norms for buffer in norm.buffers()]
        with _dropped_places_count(self.model):
            self.optimizer = create_optimizer_v2(self.model, **optimizer_kwargs(recipe))
        self.scheduler, self.epochs = create_scheduler_v2(
            self.optimizer, updates_per_epoch=loader.updates, **scheduler_kwargs(recipe)
        )
        ema: dict[str, Any] = {"decay": recipe.model_ema_decay, "use_warmup": recipe.model_ema_warmup}
        self.ema = ModelEmaV3(self.model, **ema) if recipe.model_ema else None
        # Only float16 has a range so small that gradients need a scale.
        scaled = amp_type(recipe) is torch.float16
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=scaled)
        self.epoch = self.update = self.skipped = self.skipped_in_row = self.counted = 0
        self.losses = self.last_lr = 0.0

    @property
    def averaged(self) -> nn.Module | None:
        """The model of averaged weights."""
        return None if self.ema is None else self.ema.module

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def train_epoch(self, on_update: Callable[[float], None] | None = None) -> float:
        """Train until the epoch's end.

        Args:
            on_update: called after every update with its loss, the mean over all processes. The state may be
                saved there.

        Returns:
            The epoch's mean loss.

        Raises:
            TrainingError: the loss was not finite too often.
            CommandError: too many images can't be read.
        """
        self.task.train()
        batches = self.loader.epoch(self.epoch, self.update)
        # Streams may end a little before the length that they tell.
        while self.update < self.loader.updates and (loss := self._update(batches)) is not None:
            self.update += 1
            if self.scheduler is not None:
                self.scheduler.step_update(num_updates=self.epoch * self.loader.updates + self.update)
            if on_update is not None:
                on_update(loss)
        if hasattr(self.optimizer, "sync_lookahead"):
            # The slow weights are those of the epoch's end, as in timm's script.
            self.optimizer.sync_lookahead()
        mean, self.last_lr = self.losses / max(1, self.counted), self.lr
        self.epoch, self.update, self.counted, self.losses = self.epoch + 1, 0, 0, 0.0
        if self.scheduler is not None:
            self.scheduler.step(self.epoch)
        if self.processes.count > 1 and self.recipe.dist_bn and not self.recipe.sync_bn:
            distribute_bn(self.model, self.processes.count, reduce=self.recipe.dist_bn == "reduce")
            if self.averaged is not None:
                # Those of the primary process, which checkpoints hold.
                distribute_bn(self.averaged, self.processes.count)
        return mean

    def one_update(self) -> float:
        """Take the first update and return its loss; with a learning rate that is not warmed up.

        Raises:
            TrainingError: the training split gave no batch, or the loss was not finite too often.
            CommandError: too many images can't be read.
        """
        loss = self._update(self.loader.epoch(0))
        if loss is None:
            raise TrainingError(
                "the training split gave no batch; it is empty or shorter than one, or no image can be read"
            )
        return loss

    def _update(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float | None:
        """One update; returns its loss, or None at the end of the data."""
        self.optimizer.zero_grad()
        before = [buffer.clone() for buffer in self.running]
        total: Any = 0.0
        count = self.loader.share.count
        for number in range(count):
            images, targets = next(batches, (None, None))
            # Streams may end a batch earlier on one process than on others.
            if self.loader.unreadable is None and self.processes.any(torch.tensor([images is None])):
                return None
            if images is None:
                return None
            if self.recipe.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            # What dropout draws must not depend on whether a training was put down.
            seed_all(self.recipe.seed, 3, self.epoch, self.update, number, self.processes.rank)
            with self.task.no_sync() if number + 1 < count else contextlib.nullcontext():
                with autocast(self.recipe, self.processes.device):
                    loss = self.task(images, targets)["loss"] / count
                self.scaler.scale(loss).backward()
            total = total + loss.detach()
        value = float(self.processes.mean(total))
        if math.isfinite(value) and self._step():
            self.losses, self.counted, self.skipped_in_row = self.losses + value, self.counted + 1, 0
            return value
        for buffer, old in zip(self.running, before, strict=True):
            buffer.copy_(old)
        self.skipped, self.skipped_in_row = self.skipped + 1, self.skipped_in_row + 1
        if self.skipped_in_row > MAX_SKIPPED:
            gradient = " with a gradient that is not finite" if math.isfinite(value) else ""
            raise TrainingError(
                f"the loss was {value}{gradient} {self.skipped_in_row} times in a row, in epoch {self.epoch + 1}; "
                "lower lr or set clip_grad, in another --output"
            )
        return math.nan

    def _step(self) -> bool:
        """Change the weights; False where the gradient's norm, which clipping needs, is not finite."""
        self.scaler.unscale_(self.optimizer)
        limit, mode = self.recipe.clip_grad, self.recipe.clip_mode
        if limit is not None and mode == "norm":
            parameters = [p for p in self.model.parameters() if p.grad is not None]
            norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
            # With a scale, the scaler itself leaves this step out and takes a smaller scale.
            if not self.scaler.is_enabled() and not bool(norm.isfinite()):
                return False
            clip_grads_with_norm_(parameters, limit, norm)
        elif limit is not None:
            dispatch_clip_grad(model_parameters(self.model, exclude_head=mode == "agc"), limit, mode=mode)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=self.epoch * self.loader.updates + self.update + 1)
        return True

    def is_sound(self) -> bool:
        """Whether the state is worth keeping: all weights are finite, running statistics among them."""
        models = [self.model] if self.averaged is None else [self.model, self.averaged]
        return all(bool(value.isfinite().all()) for model in models for value in model.state_dict().values())

    def state_dict(self) -> dict[str, Any]:
        """Everything that a training needs to go on: tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": {name: getattr(self, name) for name in _PROGRESS},
        }

    def load_state_dict(self, state: dict[str, Any], own_values: bool = False) -> None:
        """Go on from a state of a training.

        Args:
            state: of :meth:`state_dict`.
            own_values: it may be one with another recipe, whose learning rate, weight decay and the like are not taken.
        """
        values = [{key: group[key] for key in _VALUES if key in group} for group in self.optimizer.param_groups]
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name in _PROGRESS:
            setattr(self, name, state["progress"][name])
        if own_values:
            for group, own in zip(self.optimizer.param_groups, values, strict=True):
                group.update(own)
            if self.scheduler is not None:
                self.scheduler.step(self.epoch)
                self.scheduler.step_update(num_updates=self.epoch * self.loader.updates + self.update)


@contextlib.contextmanager
def _dropped_places_count(model: nn.Module) -> Iterator[None]:
    """While an optimiser is made: timm numbers layers by their parameters, and a block that was left out has none.

    With one, which is empty, the other blocks' ``layer_decay`` is what it is in the base.
    """
    dropped = [module for module in model.modules() if isinstance(module, DroppedBlock)]
    for module in dropped:
        module.place = nn.Parameter(torch.empty(0))
    try:
        yield
    finally:
        for module in dropped:
            del module.place


# What a recipe says of an optimiser; others of its values are part of where it is.
_VALUES = ("lr", "initial_lr", "lr_scale", "weight_decay", "momentum", "betas", "eps")
_PROGRESS = ("epoch", "update", "skipped", "skipped_in_row", "counted", "losses")


def train(
    model: Any,
    recipe: Recipe,
    loader: TrainingLoader,
    processes: Processes,
    on_epoch: Callable[[int, int, float, nn.Module], None] | None = None,
    on_update: Callable[[], None] | None = None,
) -> nn.Module:
    """Train a model by a recipe from start to end.

    Args:
        model: the model; moved to the device and trained in place.
        recipe: the recipe.
        loader: its training loader.
        processes: this process.
        on_epoch: called after every epoch with its number from 1, the number of epochs, the mean loss and what would be
            returned as it is by then. What it raises ends the training, as what ``on_update`` raises.
        on_update: called after every update.

    Returns:
        The trained model, or with ``model_ema`` the model of averaged weights, in evaluation mode.

    Raises:
        UserError: model and recipe don't go together.
        TrainingError: the loss was not finite too often.
        CommandError: too many images can't be read.
    """
    return train_on(Trainer(model, recipe, loader, processes), on_epoch, on_update)


def train_on(
    trainer: Trainer,
    on_epoch: Callable[[int, int, float, nn.Module], None] | None = None,
    on_update: Callable[[], None] | None = None,
) -> nn.Module:
    """Train from where a trainer is to the end; callbacks, what is returned and raised as of :func:`train`."""
    trained = trainer.model if trainer.averaged is None else trainer.averaged
    while trainer.epoch < trainer.epochs:
        loss = trainer.train_epoch(None if on_update is None else lambda loss: on_update())
        if on_epoch is not None:
            on_epoch(trainer.epoch, trainer.epochs, loss, trained)
    return trained.eval()
