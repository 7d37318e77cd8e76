"""Training a chosen model towards its base on unlabelled images, watched on those held out."""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cp_vision.shared.errors import UserError, one_line
from cp_vision.shared.files import make_folder, remove_unfinished, whole_file
from cp_vision.shared.nested import tensors_in

from .library_files import fingerprint_of
from .workbench import Workbench

__all__ = ["distil"]

# Large pretrained models bear small rates alone, small ones learn more from larger ones; each is tried on some batches.
_RATES, _TRIED = (3e-5, 1e-4, 3e-4, 1e-3), 24


def distil(
    bench: Workbench, model: nn.Module, epochs: int, batches: Iterable[Tensor], folder: Path
) -> tuple[nn.Module, float, int]:
    """Train a copy by the squared error of its last features, with AdamW.

    A base has often seen the images: losses of classes would take the model away from what the base does on others.
    The learning rate is that which is best on held-out images after some batches. Norms keep their statistics, and
    nothing is dropped out. The same images give the same weights.

    Args:
        bench: the base and its images.
        model: in eval mode; left untouched.
        epochs: passes over the batches.
        batches: of images, that can be read again and again.
        folder: of the library's; holds a state after each epoch, from which a call that was stopped goes on to the same
            weights, and in the end the best state.

    Returns:
        The best state on held-out images after any epoch, the untrained one among them; its score; after how many
        epochs it was.

    Raises:
        UserError: what lies in the folder is no such state.
        OSError: a state can't be written.
    """
    file = _file(folder, bench, model, epochs, batches)
    wanted = _features(bench.model)
    state = _read(file)
    if state is None:
        rate = _best_rate(bench, model, batches, wanted)
        state = {"rate": rate, "epoch": 0, "best": None, "score": bench.score_model(model), "kept": 0}
    if state["epoch"] < epochs:
        student = copy.deepcopy(model)
        optimizer = _optimizer(student, state["rate"])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        if state["epoch"]:
            for part, name in ((student, "student"), (optimizer, "optimizer"), (schedule, "schedule")):
                part.load_state_dict(state[name])
        while state["epoch"] < epochs:
            _train(student, optimizer, batches, wanted)
            schedule.step()
            state["epoch"] += 1
            if (now := bench.score_model(student)) < state["score"]:
                best = {key: value.clone() for key, value in student.state_dict().items()}
                state.update(best=best, score=now, kept=state["epoch"])
            now_there: dict[str, Any] = {"student": student, "optimizer": optimizer, "schedule": schedule}
            # In the end the best is all that anybody asks for.
            more = {name: part.state_dict() for name, part in now_there.items() if state["epoch"] < epochs}
            held = io.BytesIO()
            torch.save({**state, **more}, held)
            with whole_file(file) as unfinished:
                # Of a full disk torch itself tells an error of its own, without the system's reason.
                unfinished.write_bytes(held.getbuffer())
    if state["best"] is None:
        return model, state["score"], 0
    trained = copy.deepcopy(model)
    trained.load_state_dict(state["best"])
    return trained, state["score"], state["kept"]


def _file(folder: Path, bench: Workbench, model: nn.Module, epochs: int, batches: Iterable[Tensor]) -> Path:
    """Where the states of this distillation are; another one has another file."""
    digest = hashlib.sha256(f"{fingerprint_of(model)} {epochs} {bench.score_name} {bench.base_score!r}".encode())
    for batch in itertools.islice(batches, 1):
        digest.update(batch.cpu().float().contiguous().numpy().tobytes())
    make_folder(folder)
    remove_unfinished(folder)
    return folder / f"{digest.hexdigest()[:16]}.pt"


def _read(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = one_line(error)
        raise UserError(f"{str(file)!r} is no state of a distillation ({reason}); remove it to begin anew") from error


def _best_rate(
    bench: Workbench, model: nn.Module, batches: Iterable[Tensor], wanted: Callable[..., list[Tensor]]
) -> float:
    """The learning rate that is best on held-out images after some batches."""
    scores = []
    for rate in _RATES:
        student = copy.deepcopy(model)
        _train(student, _optimizer(student, rate), itertools.islice(batches, _TRIED), wanted)
        scores.append(bench.score_model(student))
    return _RATES[scores.index(min(scores))]


def _optimizer(student: nn.Module, rate: float) -> torch.optim.Optimizer:
    for parameter in student.parameters():
        parameter.requires_grad_()
    return torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=0)


@torch.enable_grad()
def _train(
    student: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Tensor], wanted: Callable[..., list[Tensor]]
) -> None:
    given = _features(student)
    for batch in batches:
        with torch.no_grad():
            targets = wanted(batch)
        optimizer.zero_grad()
        pairs = list(zip(given(batch), targets, strict=True))
        parts = [(own - target).square().mean() / target.var().clamp_min(1e-12) for own, target in pairs]
        torch.stack(parts).mean().backward()
        optimizer.step()


def _features(model: Any) -> Callable[[Tensor], list[Tensor]]:
    """The last features of timm's models, of others what they give."""
    run = getattr(model, "forward_features", model)
    return lambda batch: tensors_in(run(batch))
