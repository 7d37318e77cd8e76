"""A whole training from a recipe, which the same command takes up again wherever it was stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cp_vision import count_macs
from cp_vision.command_line import CommandError
from cp_vision.errors import UserError
from cp_vision.files import check_path, make_folder, write_text

from .checkpoints import load_state, save_state
from .data import count_classes, open_splits
from .loaders import ScoringLoader, TrainingLoader
from .logs import Logs, Row
from .models import build_model, data_config, load_teacher, model_args, save_model
from .processes import Processes, single_process
from .rehearsal import rehearse
from .schema import Recipe, load_recipe
from .scoring import evaluate
from .seeding import seed_all
from .trainer import Trainer, TrainingError
from .unreadable import MAX_UNREADABLE

__all__ = ["Training"]

# What may differ when a training goes on: it changes nothing in the weights.
_FREE = {"workers", "log_interval", "recovery_interval", "validation_batch_size", "data_dir", "dataset_download"}


class Training:
    """A training by a recipe that is set up and checked, with nothing written yet.

    ``output`` gets ``last/``, ``best/`` and with ``model_ema`` ``ema/`` (``local-dir:`` folders), the checkpoint
    from which the same training goes on, ``recipe.yaml``, logs, and at the end ``summary.json``.

    Args:
        recipe: the recipe.
        output: folder to write; new, empty, or that of the same training.
        processes: this process; None is one alone.
        max_unreadable: how many images may be unreadable in each split.

    Attributes:
        trainer: the training itself, at the place from which it goes on.
        rows: its epochs so far.
        problems: a line for each checkpoint that couldn't be read.
        finished: the summary of a training that is done; there is nothing left to run then.

    Raises:
        UserError: an output that holds something else, a model or data set that can't be had, no readable
            checkpoint.
    """

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        processes: Processes | None = None,
        max_unreadable: int = MAX_UNREADABLE,
    ) -> None:
        self.recipe, self.output = recipe, output.absolute()
        self.processes = processes or single_process()
        train_set, test_set = open_splits(recipe)
        self.classes = getattr(train_set, "classes", None)
        num_classes = count_classes(train_set, recipe)
        self.images = len(train_set)
        identity = {"images": self.images, "classes": num_classes}
        found = _state_of(self.output, recipe, identity) if self.processes.primary else None
        state, self.problems, self.finished = self.processes.told(found)
        args = model_args(recipe.model, recipe, num_classes, recipe.model_kwargs)
        weights = (recipe.pretrained, recipe.initial_checkpoint) if state is None else (False, None)
        seed_all(recipe.seed)
        model = build_model(recipe.model, args, *weights)
        self.config = data_config(model, recipe)
        self.loader = TrainingLoader(train_set, recipe, self.config, num_classes, self.processes, max_unreadable)
        self.test_loader = ScoringLoader(test_set, recipe, self.config, self.processes, max_unreadable)
        self.rows: list[Row] = []
        if state is None:
            rehearse(build_model(recipe.model, args), recipe, self.loader, self.test_loader, self.processes)
        teacher = load_teacher(recipe, num_classes)
        self.trainer = Trainer(model, recipe, self.loader, self.processes, teacher, self.config)
        self.identity = identity
        if state is not None:
            self.trainer.load_state_dict(state)
            self.rows = state["rows"]

    def run(
        self,
        on_update: Callable[[Trainer, float], None] | None = None,
        on_epoch: Callable[[Row], None] | None = None,
    ) -> dict[str, Any]:
        """Train to the end and write the output.

        Args:
            on_update: called after every update with the trainer and the loss.
            on_epoch: called after every epoch with its row of the log.

        Returns:
            The summary: ``top1``, ``top5`` in percent and ``loss`` of the last epoch, the best epoch and its
            scores, ``macs``, ``params``, updates that were skipped and images that can't be read.

        Raises:
            CommandError: training broke off; the last good checkpoint is kept.
        """
        if self.finished is not None:
            return dict(self.finished)
        primary, trainer = self.processes.primary, self.trainer
        if primary:
            make_folder(self.output)
            write_text(self.output / "recipe.yaml", self.recipe.to_yaml())
        logs = Logs(self.output, f"{self.recipe.model}, {self.recipe.epochs} epochs", self._step) if primary else None
        began, first = time.monotonic(), self._step

        def after_update(loss: float) -> None:
            if logs is not None and self._step % self.recipe.log_interval == 0:
                rate = (self._step - first) * self.recipe.update_size / (time.monotonic() - began)
                logs.update(self._step, loss=loss, lr=trainer.lr, images_per_second=rate)
            if self.recipe.recovery_interval and self._step % self.recipe.recovery_interval == 0:
                self._save()
            if on_update is not None:
                on_update(trainer, loss)

        try:
            while trainer.epoch < trainer.epochs:
                lr = trainer.lr
                loss = trainer.train_epoch(after_update)
                self._end_epoch(loss, lr)
                if logs is not None:
                    logs.epoch(self.rows, self._step)
                if on_epoch is not None:
                    on_epoch(self.rows[-1])
        except TrainingError as error:
            kept = f"; {str(self.output)!r} keeps the last good checkpoint" if _has_checkpoint(self.output) else ""
            raise CommandError(f"{error}{kept}") from error
        finally:
            if logs is not None:
                logs.close()
        summary = self._summary()
        if primary:
            write_text(self.output / "summary.json", json.dumps(summary, indent=2) + "\n")
        return summary

    @property
    def _step(self) -> int:
        return self.trainer.epoch * self.loader.updates + self.trainer.update

    def _end_epoch(self, loss: float, lr: float) -> None:
        trainer, recipe = self.trainer, self.recipe
        row: Row = {"epoch": trainer.epoch, "train_loss": loss, "loss": None, "top1": None, "top5": None}
        row |= {"lr": lr, "skipped": trainer.skipped}
        scored = trainer.model if trainer.averaged is None else trainer.averaged
        if trainer.epoch % recipe.val_interval == 0 or trainer.epoch == trainer.epochs:
            row |= evaluate(scored, self.test_loader, self.processes, recipe)
        self.rows.append(row)
        if self.loader.unreadable is not None:
            self.loader.unreadable.table |= self.processes.any(self.loader.unreadable.table)
            self.loader.unreadable.check()
        # Before the checkpoint: a training killed in between does this epoch's end again.
        if self.processes.primary and trainer.is_sound():
            if row is self._best():
                self._save_model(scored, "best")
            self._save_model(trainer.model, "last")
            if trainer.averaged is not None:
                self._save_model(trainer.averaged, "ema")
        self._save()

    def _best(self) -> Row | None:
        """The best epoch, of several the first."""
        key, sign = self.recipe.eval_metric, -1 if self.recipe.eval_metric == "loss" else 1
        scored = [row for row in self.rows if row[key] is not None]
        return max(scored, key=lambda row: sign * float(row[key] or 0)) if scored else None

    def _save(self) -> None:
        if self.processes.primary and self.trainer.is_sound():
            save_state({**self.trainer.state_dict(), "rows": self.rows, "identity": self.identity}, self.output)

    def _save_model(self, model: Any, name: str) -> None:
        save_model(model, self.output / name, self.config, self.classes)

    def _summary(self) -> dict[str, Any]:
        best, last = self._best() or {}, self.rows[-1]
        unreadable = [loader.unreadable for loader in (self.loader, self.test_loader) if loader.unreadable is not None]
        return {
            **{name: last[name] for name in ("top1", "top5", "loss")},
            "epochs": last["epoch"],
            "best": {name: best.get(name) for name in ("epoch", "top1", "top5", "loss")},
            "macs": count_macs(self.trainer.model, self.config["input_size"]),
            "params": sum(parameter.numel() for parameter in self.trainer.model.parameters()),
            "skipped": self.trainer.skipped,
            "unreadable": [str(images) for images in unreadable if images.count],
        }


def _has_checkpoint(output: Path) -> bool:
    return any(output.glob("checkpoint*.pt"))


def _state_of(output: Path, recipe: Recipe, identity: dict[str, Any]) -> tuple[Any, list[str], Any]:
    """The state of this training in its folder (None at the start), problems with it, and a summary if it is done."""
    check_path(output)
    if output == Path.cwd():
        raise UserError(f"output {str(output)!r} is the current folder; name a new one")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None, [], None
    if not (output / "recipe.yaml").is_file():
        raise UserError(f"output {str(output)!r} is there and holds no training; choose another --output")
    theirs, ours = (one.model_dump(exclude=_FREE) for one in (load_recipe(output / "recipe.yaml"), recipe))
    changed = [key for key in ours if ours[key] != theirs[key]]
    state, problems = load_state(output)
    for key, value in (state or {}).get("identity", {}).items():
        if value != identity[key]:
            raise UserError(
                f"output {str(output)!r} holds a training on {value} {key}, these are {identity[key]}; choose another "
                "--output"
            )
    if changed:
        key = changed[0]
        raise UserError(
            f"output {str(output)!r} holds a training with {key} {theirs[key]!r}, this one has {ours[key]!r}; "
            "choose another --output"
        )
    summary = output / "summary.json"
    return state, problems, json.loads(summary.read_text()) if summary.is_file() else None
