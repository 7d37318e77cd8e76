"""The search by fitted stand-ins, from a config to folders that timm loads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cp_vision.models.build import check_base
from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line
from cp_vision.shared.files import check_path, make_folder, write_text

from ...recipes.data.evaluation_loader import ScoringLoader
from ...recipes.data.images import Images
from ...recipes.data.open import count_classes, open_splits
from ...recipes.data.seeding import seed_all
from ...recipes.models import build_model, data_config, save_model
from ...recipes.processes import single_process
from ...recipes.recipe.keys import Recipe
from ..config.recipe import search_recipe
from ..config.schema import SearchConfig
from ..context import base_architecture
from ..evaluators.guessing import refuse_guessing
from ..study.workers import folder_lock
from .compress import compress
from .library import Tell
from .option import describe
from .result import Compressed, Outcome, Point

__all__ = ["run_fit"]

LIBRARY = "library"


def run_fit(config: SearchConfig, tell: Tell | None = None) -> Compressed:
    """Put the trained base of a config under its budgets, and write a folder for each.

    Stand-ins are fitted to images of the training split, without labels and without augmentation; nothing is chosen
    by a label. The models and their counterparts are scored on the test split, once each.

    Args:
        config: of a search whose evaluator is ``fit``.
        tell: called with done, total and what is being done.

    Returns:
        What :func:`compress` does.

    Raises:
        UserError: base, weights, data and budgets don't go together, or the output folder holds another search.
        CommandError: the output folder can't be written.
    """
    output = Path(config.output)
    check_path(output)
    check_base(config.base)
    recipe = search_recipe(config)
    train, test = open_splits(recipe)
    if not isinstance(train, Images):
        raise UserError("the data set is streamed, so images can't be taken from it by number; use a folder")
    classes = count_classes(train, recipe)
    base = base_architecture(config, recipe, classes)
    seed_all(recipe.seed)
    model = build_model(config.base, base.model_args, recipe.pretrained, recipe.initial_checkpoint).eval()
    if (output / "search.json").exists():
        raise UserError(f"output {str(output)!r} holds a search of another evaluator; choose another --output")
    processes = single_process()
    model.to(processes.device)
    count = min(config.fit_images, len(train))
    part = train.part([i * len(train) // count for i in range(count)])
    known = ScoringLoader(part, recipe, data_config(model, recipe), processes)
    refuse_guessing(100 * float(_right(model, known).mean()), classes, count)
    images = _Unlabelled(known)
    scored = ScoringLoader(test, recipe, data_config(model, recipe), processes)
    make_folder(output)
    # One process after another; each goes on from the library of those before.
    with folder_lock(output):
        return _compressed(config, model, images, scored, recipe, train.classes, tell)


def _compressed(
    config: SearchConfig,
    model: nn.Module,
    images: _Unlabelled,
    scored: ScoringLoader,
    recipe: Recipe,
    classes: Mapping[str, int] | None,
    tell: Tell | None,
) -> Compressed:
    output = Path(config.output)
    try:
        found = compress(
            model,
            images,
            config.budget_text,
            evaluate=lambda candidate: _right(candidate, scored),
            limit=config.fit_images,
            epochs=config.distil_epochs,
            folder=output / LIBRARY,
            progress=tell,
        )
        for point in found.points:
            files = {"metrics.json": _json(_point(point, found)), "README.md": _card(point, found, config)}
            save_model(point.model, output / point.budget, data_config(point.model, recipe), classes, files)
        write_text(output / "results.json", _json(_results(found, config)))
        write_text(output / "table.txt", f"{found}\n\n{found.table()}\n")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise CommandError(
            f"output {str(output)!r} can't be written: {reason}; make room, and the same command goes on from its "
            "library"
        ) from error
    return found


class _Unlabelled:
    """Images in order, as the model is evaluated on them; read anew each time."""

    def __init__(self, loader: ScoringLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Tensor]:
        for images, _ in self._loader:
            if len(images):
                yield images


@torch.inference_mode()
def _right(model: nn.Module, loader: ScoringLoader) -> Tensor:
    """For each image 1 where the model is right, else 0."""
    return torch.cat([(model(images).argmax(1) == labels).double() for images, labels in loader if len(labels)])


def _json(values: Any) -> str:
    return json.dumps(values, indent=2) + "\n"


def _outcome(outcome: Outcome, found: Compressed) -> dict[str, Any]:
    accuracy = outcome.accuracy
    return {
        "made_of": describe(outcome.candidate),
        "macs": outcome.macs,
        "share_of_base": outcome.macs / found.base_macs,
        found.measure: outcome.score,
        "refitted": outcome.refitted,
        "distilled_epochs": outcome.epochs,
        "test_top1": None if accuracy is None else accuracy.value,
        "standard_error": None if accuracy is None else accuracy.error,
    }


def _point(point: Point, found: Compressed) -> dict[str, Any]:
    architecture = point.architecture
    return {
        "budget": point.budget,
        "limit": point.limit,
        **_outcome(point.best, found),
        "architecture": None if architecture is None else json.loads(architecture.to_json()),
        "pools_add": None if point.pools_add is None else [point.pools_add.value, point.pools_add.error],
        "counterparts": {name: _outcome(outcome, found) for name, outcome in point.counterparts.items()},
    }


def _results(found: Compressed, config: SearchConfig) -> dict[str, Any]:
    accuracy = found.base_accuracy
    return {
        "base": config.base,
        "base_macs": found.base_macs,
        "base_test_top1": None if accuracy is None else accuracy.value,
        "base_standard_error": None if accuracy is None else accuracy.error,
        "images": found.images,
        "held_out": found.held_out,
        "points": [_point(point, found) for point in found.points],
        "seconds": dict(found.seconds),
        "command": config.command,
    }


def _card(point: Point, found: Compressed, config: SearchConfig) -> str:
    rows = [
        ("Base", f"{config.base}, {found.base_macs:,} MACs, test top-1 {found.base_accuracy} %"),
        *(
            (
                outcome.name,
                f"{outcome.macs / found.base_macs:.3f}x, {found.measure} {outcome.score:.4g}, "
                f"test top-1 {outcome.accuracy} %",
            )
            for outcome in (point.best, *point.counterparts.values())
        ),
        ("Made of", describe(point.best.candidate)),
    ]
    table = "\n".join(f"| {name} | {text} |" for name, text in rows)
    return f"""# {config.base} at {point.budget} of its MACs, by cp-search

Fitted in closed form to {found.images - found.held_out} unlabelled images; {found.measure} is that from the base on
{found.held_out} others. ± is the standard error over test images.

| | |
|---|---|
{table}

```python
import timm, cp_vision
model = timm.create_model("local-dir:{Path(config.output) / point.budget}", pretrained=True)
```

Made by: `{config.command}`
"""
