"""A whole training from a recipe, which the same command takes up again wherever it was stopped."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cp_vision import count_macs
from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line
from cp_vision.shared.files import make_folder, remove_unfinished, write_text

from ..data import MAX_UNREADABLE
from ..data.evaluation_loader import ScoringLoader
from ..data.failures import reason_of
from ..data.open import count_classes, fingerprint_of, found_in, open_splits
from ..data.seeding import seed_all
from ..data.training_loader import TrainingLoader, worker_count
from ..data.unreadable import Unreadable
from ..evaluation.evaluate import evaluate
from ..models import build_model, data_config, model_args, new_head, save_model
from ..processes import Processes, single_process
from ..recipe.keys import Recipe
from ..training.first_step import rehearse
from ..training.trainer import Trainer, TrainingError
from .checkpoints import load_state, read_state, save_state, writing
from .logs import Logs, Row, best_row, best_rows
from .output_folder import alone_in, check_folder, has_checkpoint
from .stop_signals import StopSignals
from .wandb_run import check_wandb, wandb_run

__all__ = ["Training"]


class Training:
    """A training by a recipe that is set up and checked, with nothing written yet.

    ``output`` gets ``last/``, ``best/``, with ``model_ema`` ``ema/``, and with ``checkpoint_hist`` above 1 the so many
    best epochs as ``history/EPOCH/`` (``local-dir:`` folders), the checkpoint
    from which the same training goes on, ``recipe.yaml``, logs, and at the end ``summary.json``. With ``model_ema``
    scores and ``best/`` are those of the averaged weights; ``last/`` has the plain weights, those that were not
    averaged, whose scores stand beside the others.

    Args:
        recipe: the recipe.
        output: folder to write; new, empty, or that of the same training.
        processes: this process; None is one alone.
        max_unreadable: how many images may be unreadable in each split.
        resume: a checkpoint of another training of this model on this data, to go on from where ``output`` has none;
            the recipe may have other values.

    Attributes:
        trainer: the training itself, at the place from which it goes on.
        rows: its epochs so far: ``epoch`` from 1, ``train_loss``, ``lr``, ``skipped`` updates, and ``loss``, ``top1``
            and ``top5`` in percent, which are None where an epoch was not scored; with ``model_ema`` also
            ``plain_loss``, ``plain_top1`` and ``plain_top5``, of the plain weights.
        note: what else is to be said before it begins, or None.
        problems: a line for each checkpoint that couldn't be read.
        found: what was found in the data set, on one line.
        data: what tells these images and classes from others, wherever they lie.
        finished: the summary of a training that is done; there is nothing left to run then, no trainer and no rows.

    Raises:
        UserError: an output that holds something else, a model or data set that can't be had, no readable
            checkpoint, a first step that fails.
        CommandError: too many images can't be read.
    """

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        processes: Processes | None = None,
        max_unreadable: int = MAX_UNREADABLE,
        resume: str | None = None,
    ) -> None:
        self.recipe, self.output = recipe, output.absolute()
        self.processes = processes or single_process()
        self.processes.told(lambda: check_wandb(recipe))
        self.finished = self.processes.told(lambda: check_folder(self.output, recipe))
        self.problems: list[str] = []
        train_set, test_set = self.processes.in_turn(lambda: open_splits(recipe))
        self.classes = getattr(train_set, "classes", None)
        num_classes = count_classes(train_set, recipe)
        self.found = found_in(train_set, test_set, (recipe.train_split, recipe.val_split))
        self.data = fingerprint_of(train_set, test_set)
        if self.finished is not None:
            self._check_data(self.finished.get("data"))
            return
        state, self.problems = self.processes.told(lambda: load_state(self.output))
        others = state is None and resume is not None
        if others and resume is not None:
            state = self.processes.told(lambda: read_state(Path(resume)))
        args = model_args(recipe.model, recipe, num_classes, recipe.model_kwargs)
        self._goes_on = state is not None
        weights = (False, None) if self._goes_on else (recipe.pretrained, recipe.initial_checkpoint)
        seed_all(recipe.seed)
        model = build_model(recipe.model, args, *weights, new_head=True)
        self.note = new_head(recipe.model, args, weights[1]) if self.processes.primary else None
        self.config = data_config(model, recipe)
        self.loader = TrainingLoader(train_set, recipe, self.config, num_classes, self.processes, max_unreadable)
        self.test_loader = ScoringLoader(test_set, recipe, self.config, self.processes, max_unreadable)
        self.rows: list[Row] = []
        self.identity = {"training images": len(train_set), "classes": num_classes, "updates": self.loader.updates}
        if self.test_loader.unreadable is not None:
            self.identity["validation images"] = len(test_set)
        if self.loader.unreadable is None:
            # What a stream gives, and in what order, depends on who reads it.
            self.identity["workers"] = worker_count(recipe)
        if state is None:
            trial = build_model(recipe.model, args)
            self.processes.agreed(lambda: rehearse(trial, recipe, self.loader, self.test_loader, self.processes))
        self.trainer = Trainer(model, recipe, self.loader, self.processes)
        if state is not None:
            self._go_on(state, others)

    def _check_data(self, theirs: str | None) -> None:
        if theirs is None:
            raise UserError(
                f"output {str(self.output)!r} holds a training of cp-vision 0.1, which didn't note its images; go on "
                "with that version, or choose another --output"
            )
        if theirs != self.data:
            raise UserError(
                f"output {str(self.output)!r} holds a training on other images or classes than those of "
                f"{self.recipe.data_dir or self.recipe.dataset!r}; choose another --output"
            )

    def _go_on(self, state: dict[str, Any], others: bool) -> None:
        for key, value in self.identity.items():
            if state["identity"].get(key) != value:
                raise UserError(
                    f"output {str(self.output)!r} holds a training with {key} {state['identity'].get(key)}, now it is "
                    f"{value}; choose another --output"
                )
        self._check_data(state.get("data"))
        try:
            self.trainer.load_state_dict(state, own_values=others)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"the checkpoint in {str(self.output)!r} is one of another model: {one_line(error)[:200]}; choose "
                "another --output"
            ) from error
        self.rows = state["rows"]
        for unreadable, found in zip(self._unreadable(), state["unreadable"], strict=True):
            unreadable.look_again(found)

    def run(
        self,
        on_update: Callable[[Trainer, float], None] | None = None,
        on_epoch: Callable[[Row], None] | None = None,
        on_begin: Callable[[], None] | None = None,
        stop: StopSignals | None = None,
    ) -> dict[str, Any]:
        """Train to the end and write the output.

        Args:
            on_update: called after every update with the trainer and the loss.
            on_epoch: called after every epoch with its row of the log.
            on_begin: called once nothing stands in the way any more, before the first update.
            stop: looked at after every update; a checkpoint is written before what it raises.

        Returns:
            The summary: ``top1``, ``top5`` in percent and ``loss`` of the last epoch, the best epoch and its
            scores, ``macs`` of one image, ``params``, updates that were skipped, images that can't be read, and
            ``data``, which tells its data from others. With ``model_ema`` also ``plain``: the last epoch's scores of
            the plain weights.

        Raises:
            UserError: the output folder can't be made, or another process is training there.
            CommandError: training broke off, or the output can't be written; the last good checkpoint is kept.
        """
        if self.finished is not None:
            return dict(self.finished)
        with contextlib.ExitStack() as held:
            self.logs: Logs | None = None
            self.processes.told(lambda: self._begin(held))
            if on_begin is not None:
                on_begin()
            return self._run(on_update, on_epoch, stop or StopSignals())

    def _begin(self, held: contextlib.ExitStack) -> None:
        """Take the folder, and begin what is logged; on the primary process alone."""
        make_folder(self.output)
        with writing(self.output):
            held.enter_context(alone_in(self.output))
            # Others may have been there since we looked.
            if check_folder(self.output, self.recipe) or (has_checkpoint(self.output) and not self._goes_on):
                where = f"output {str(self.output)!r}"
                raise UserError(f"{where}: another process has trained there meanwhile; run the same command again")
            remove_unfinished(self.output)
            write_text(self.output / "recipe.yaml", self.recipe.to_yaml())
            run = held.enter_context(wandb_run(self.recipe, self.output))
            self.logs = Logs(self.output, self._step, self.recipe.model_ema, run)
            held.callback(self.logs.close)

    def _run(
        self,
        on_update: Callable[[Trainer, float], None] | None,
        on_epoch: Callable[[Row], None] | None,
        stop: StopSignals,
    ) -> dict[str, Any]:
        primary, trainer, logs = self.processes.primary, self.trainer, self.logs
        began, first = time.monotonic(), self._step

        def after_update(loss: float) -> None:
            if logs is not None and self._step % self.recipe.log_interval == 0:
                rate = (self._step - first) * self.recipe.update_size / (time.monotonic() - began)
                with writing(self.output):
                    logs.update(self._step, loss=loss, lr=trainer.lr, images_per_second=rate)
            # At an epoch's end there is more to come before a checkpoint.
            interval = self.recipe.recovery_interval
            within = trainer.update < self.loader.updates
            if on_update is not None:
                on_update(trainer, loss)
            ends = within and stop.number is not None
            due = within and interval and self._step % interval == 0
            if primary and (ends or due) and trainer.is_sound():
                self._save()
            if ends:
                stop.check()

        try:
            if trainer.epoch == trainer.epochs:
                # It was killed right before.
                self._write_logs()
            while trainer.epoch < trainer.epochs:
                self._end_epoch(trainer.train_epoch(after_update))
                if on_epoch is not None:
                    on_epoch(self.rows[-1])
                self._write_logs()
                if trainer.epoch < trainer.epochs:
                    stop.check()
        except (CommandError, UserError):
            raise
        except Exception as error:
            # Whatever an augmentation, a driver or the system raises after the first step was tried.
            raise CommandError(f"{self._why(error)}{self._kept()}") from error
        summary = self._summary()
        if primary:
            with writing(self.output):
                write_text(self.output / "summary.json", json.dumps(summary, indent=2) + "\n")
        return summary

    def _why(self, error: Exception) -> str:
        if isinstance(error, TrainingError):
            return str(error)
        return f"training broke off in epoch {self.trainer.epoch + 1}: {reason_of(error)}"

    def _kept(self) -> str:
        if not has_checkpoint(self.output):
            return ""
        return f"; {str(self.output)!r} keeps the last good checkpoint, from which the same command goes on"

    def _write_logs(self) -> None:
        if self.logs is not None:
            with writing(self.output):
                self.logs.epoch(self.rows, self._step)

    @property
    def _step(self) -> int:
        return self.trainer.epoch * self.loader.updates + self.trainer.update

    def _end_epoch(self, loss: float) -> None:
        trainer, recipe = self.trainer, self.recipe
        row: Row = {"epoch": trainer.epoch, "train_loss": loss, "loss": None, "top1": None, "top5": None}
        row |= {"lr": trainer.last_lr, "skipped": trainer.skipped}
        scored = trainer.model if trainer.averaged is None else trainer.averaged
        if trainer.epoch % recipe.val_interval == 0 or trainer.epoch == trainer.epochs:
            row |= evaluate(scored, self.test_loader, self.processes, recipe)
            if trainer.averaged is not None:
                plain = evaluate(trainer.model, self.test_loader, self.processes, recipe)
                row |= {f"plain_{name}": score for name, score in plain.items()}
        self.rows.append(row)
        for unreadable in self._unreadable():
            unreadable.table |= self.processes.any(unreadable.table)
            unreadable.check()
        if not trainer.is_sound():
            raise TrainingError(
                f"weights are not finite after epoch {trainer.epoch}; lower lr or set clip_grad, in another --output"
            )
        # Before the checkpoint: a training killed in between does this epoch's end again.
        if self.processes.primary:
            with writing(self.output):
                if row is best_row(self.rows, recipe.eval_metric):
                    self._save_model(scored, "best")
                self._keep_history(scored, row)
                self._save_model(trainer.model, "last")
                if trainer.averaged is not None:
                    self._save_model(trainer.averaged, "ema")
            self._save()

    def _keep_history(self, model: Any, row: Row) -> None:
        """Keep the model of this epoch if it is among the best, and no longer those that are not."""
        history = self.output / "history"
        count = self.recipe.checkpoint_hist
        kept = best_rows(self.rows, self.recipe.eval_metric)[:count] if count > 1 else []
        if any(row is one for one in kept):
            history.mkdir(exist_ok=True)
            self._save_model(model, f"history/{row['epoch']}")
        names = {str(one["epoch"]) for one in kept}
        for folder in history.iterdir() if history.is_dir() else ():
            if folder.name not in names:
                shutil.rmtree(folder)
        if history.is_dir() and not names:
            history.rmdir()

    def _unreadable(self) -> list[Unreadable]:
        """The unreadable images of both splits; data that is streamed has no such table."""
        found = (self.loader.unreadable, self.test_loader.unreadable)
        return [unreadable for unreadable in found if unreadable is not None]

    def _save(self) -> None:
        unreadable = [images.found for images in self._unreadable()]
        more = {"rows": self.rows, "identity": self.identity, "data": self.data, "unreadable": unreadable}
        save_state({**self.trainer.state_dict(), **more}, self.output)

    def _save_model(self, model: Any, name: str) -> None:
        save_model(model, self.output / name, self.config, self.classes)

    def _summary(self) -> dict[str, Any]:
        best, last = best_row(self.rows, self.recipe.eval_metric) or {}, self.rows[-1]
        scores = ("top1", "top5", "loss")
        plain = {} if self.trainer.averaged is None else {"plain": {name: last[f"plain_{name}"] for name in scores}}
        return {
            **{name: last[name] for name in scores},
            **plain,
            "epochs": last["epoch"],
            "best": {name: best.get(name) for name in ("epoch", "top1", "top5", "loss")},
            "macs": count_macs(self.trainer.model, self.config["input_size"]),
            "params": sum(parameter.numel() for parameter in self.trainer.model.parameters()),
            "skipped": self.trainer.skipped,
            "data": self.data,
            "unreadable": [str(images) for images in self._unreadable() if images.count],
        }
