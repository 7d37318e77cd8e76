"""What is trained: a model in timm's task with its loss, compiled and distributed as a recipe says."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import DropPath, convert_sync_batchnorm
from timm.task import ClassificationTask, DistillationTeacher, LogitDistillationTask
from torch import nn

from cp_vision.shared.errors import UserError, one_line

from ..models import data_config
from ..processes import Processes
from ..recipe.keys import Recipe

__all__ = ["make_task"]


def make_task(
    model: Any,
    recipe: Recipe,
    processes: Processes,
    teacher: nn.Module | None = None,
) -> tuple[nn.Module, Any]:
    """Make timm's task for a recipe.

    Args:
        model: the model; moved to the device.
        recipe: loss, distillation, memory format, compilation.
        processes: this process.
        teacher: for distillation, a model.

    Returns:
        The model itself, in no wrapper, and the task, which takes images and targets.

    Raises:
        UserError: a model without gradient checkpointing or stochastic depth, a compiler that torch doesn't know.
    """
    if recipe.drop_path_uniform:
        _drop_paths_alike(model, recipe.drop_path or 0.0)
    model = model.to(processes.device).train()
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.grad_checkpointing:
        try:
            model.set_grad_checkpointing(True)
        except (AssertionError, AttributeError) as error:
            name = type(model).__name__
            raise UserError(f"{name} models have no gradient checkpointing; leave grad_checkpointing out") from error
    if recipe.sync_bn and processes.count > 1:
        model = convert_sync_batchnorm(model)
    loss: dict[str, Any] = {
        "loss_type": "bce" if recipe.bce_loss else "ce",
        "smoothing": recipe.smoothing,
        "soft_targets": recipe.mixes,
    }
    if recipe.bce_loss:
        loss["bce_target_thresh"] = recipe.bce_target_thresh
    shared: dict[str, Any] = {"criterion_kwargs": loss, "device": processes.device, "verbose": False}
    if teacher is None:
        task: Any = ClassificationTask(model, **shared)
    else:
        task = LogitDistillationTask(
            model,
            DistillationTeacher(teacher.to(processes.device), device=processes.device),
            distill_loss_weight=recipe.distill_loss_weight,
            task_loss_weight=recipe.task_loss_weight,
            temperature=recipe.kd_temperature,
            **shared,
        )
        # timm takes the statistics of the models' own weights. The student's a recipe may replace, and grey images have
        # others; the teacher knows its own alone.
        own = recipe.with_values(mean=None, std=None)
        of_student, of_teacher = data_config(model, recipe), data_config(teacher, own)
        for key in ("mean", "std"):
            for module, name, config in ((task, f"student_{key}", of_student), (task.teacher, f"{key}_kd", of_teacher)):
                setattr(module, name, torch.tensor(config[key], device=processes.device).view(1, -1, 1, 1))
    if recipe.torchcompile is not None:
        try:
            task.compile(backend=recipe.torchcompile, mode=recipe.torchcompile_mode)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"torchcompile {recipe.torchcompile!r}: {one_line(error)}") from error
    if processes.count > 1:
        device = processes.device
        task.prepare_distributed(device_ids=[device.index] if device.type == "cuda" else None)
    return model, task


def _drop_paths_alike(model: nn.Module, rate: float) -> None:
    """Give all blocks one rate of stochastic depth. timm has no such argument: its rates grow from 0 to the last's.

    Raises:
        UserError: the model has no stochastic depth.
    """
    # A block whose rate is 0 has an identity there, or in ResNets nothing; the names are timm's.
    places = [
        (module, name)
        for module in model.modules()
        for name in ("drop_path", "drop_path1", "drop_path2")
        if isinstance(getattr(module, name, 0), DropPath | nn.Identity | None)
    ]
    if not places:
        raise UserError(f"{type(model).__name__} models have no stochastic depth; leave drop_path_uniform out")
    for module, name in places:
        setattr(module, name, DropPath(rate))
