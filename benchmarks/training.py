"""Images a second of a training by a recipe beside a bare loop over the same model and data.

    python benchmarks/training.py

Writes ``training.md`` to ``--output``: medians of one process in which both take turns, an epoch of scikit-learn's
digits each. The bare loop is timm's loader, a forward pass, cross-entropy, a backward pass and a step.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from pathlib import Path

import torch
from timm.data import create_loader
from timm.optim import create_optimizer_v2, optimizer_kwargs
from torch.nn import functional as F

from benchmarks.measure import median_times
from cp_vision.recipes import Recipe, Trainer, TrainingLoader, build_model, load_recipe, single_process
from cp_vision.recipes.data.open import open_split
from cp_vision.recipes.models import data_config, model_args

CASES = {
    "cp_test_vit2, 32 px": [],
    "cp_resnet18, 64 px": ["model=cp_resnet18", "img_size=64", "opt=sgd"],
    "cp_vit_tiny_patch16_224, 96 px": ["model=cp_vit_tiny_patch16_224", "img_size=96", "opt=adamw", "lr=0.001"],
}


def functions(recipe: Recipe) -> dict:
    """An epoch of the trainer, and one of a bare loop."""
    process = single_process()
    args = model_args(recipe.model, recipe, 10, recipe.model_kwargs)
    models = [build_model(recipe.model, args) for _ in range(2)]
    config = data_config(models[0], recipe)
    loader = TrainingLoader(open_split(recipe, "train"), recipe, config, 10, process)
    trainer = Trainer(models[0], recipe, loader, process)
    plain_loader = create_loader(
        open_split(recipe, "train"),
        config["input_size"],
        recipe.batch_size,
        is_training=True,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter,
        interpolation=recipe.train_interpolation,
        mean=config["mean"],
        std=config["std"],
        num_workers=recipe.workers,
        device=process.device,
    )
    model = models[1].to(process.device).train()
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(recipe))

    def bare() -> None:
        for images, targets in plain_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), targets, label_smoothing=recipe.smoothing)
            loss.backward()
            optimizer.step()

    return {"trainer": trainer.train_epoch, "bare": bare}


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    lines = [
        f"Made by `python benchmarks/training.py`, {torch.get_num_threads()} threads, torch {torch.__version__}.",
        "",
        "| model | bare loop, images/s | trainer, images/s | share | at least 0.95 |",
        "|---|---|---|---|---|",
    ]
    for name, settings in CASES.items():
        recipe = load_recipe("digits", [*settings, "clip_grad=null", "workers=0"])
        times = median_times(functions(recipe), arguments.repeats, 120)
        images = 1437 // recipe.batch_size * recipe.batch_size
        share = times["bare"] / times["trainer"]
        reached = "reached" if share >= 0.95 else "not reached"
        lines.append(
            f"| {name} | {images / times['bare']:.0f} | {images / times['trainer']:.0f} | {share:.3f} | {reached} |"
        )
        print(lines[-1], flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "training.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
