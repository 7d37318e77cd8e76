"""What weight decay on a pool's own parameters does to accuracy.

    python benchmarks/pool_decay.py

Trains ContextPool models on scikit-learn's digits, several seeds each, and writes ``pool_decay.md`` to ``--output``:
mean and standard deviation of the test accuracy.
"""

from __future__ import annotations

import os
import sys

# Modules are searched in the root of the checkout, not in this file's folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from cp_vision.anatomy.block import CHILD
from cp_vision.recipes import (
    ScoringLoader,
    Trainer,
    TrainingLoader,
    build_model,
    evaluate,
    load_recipe,
    open_splits,
    single_process,
)
from cp_vision.recipes.data.seeding import seed_all
from cp_vision.recipes.models import data_config, model_args

# Decays as strong as they get in the papers' recipes, so that a difference would show.
MODELS = {
    "ViT (digits recipe, AdamW)": ["opt=adamw", "lr=0.003", "weight_decay=0.3", "warmup_epochs=1"],
    "ResNet (cp_test_resnet, AdamW)": ["model=cp_test_resnet", "opt=adamw", "lr=0.003", "weight_decay=0.3"],
}
RULES = ("kernels of the mapping decay, gate and biases don't (timm's rule)", "nothing of a pool decays", "all decays")


def accuracy(settings: list[str], rule: str, seed: int) -> float:
    """Test accuracy of one training in percent."""
    recipe = load_recipe("digits", [*settings, f"seed={seed}"])
    process = single_process()
    seed_all(seed)
    model: Any = build_model(recipe.model, model_args(recipe.model, recipe, 10, recipe.model_kwargs))
    config = data_config(model, recipe)
    train_set, test_set = open_splits(recipe)
    trainer = Trainer(model, recipe, TrainingLoader(train_set, recipe, config, 10, process), process)
    pools = {id(p): p for name, p in model.named_parameters() if f".{CHILD}." in name}
    for group in list(trainer.optimizer.param_groups):
        own = [p for p in group["params"] if id(p) in pools]
        group["params"] = [p for p in group["params"] if id(p) not in pools]
        decay = {RULES[0]: group["weight_decay"], RULES[1]: 0.0, RULES[2]: recipe.weight_decay}[rule]
        trainer.optimizer.add_param_group({**group, "params": own, "weight_decay": decay})
    for _ in range(trainer.epochs):
        trainer.train_epoch()
    return evaluate(model, ScoringLoader(test_set, recipe, config, process), process)["top1"]


def main() -> None:
    """Train, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    lines = [
        f"Made by `python benchmarks/pool_decay.py --seeds {arguments.seeds}`, torch {torch.__version__}.",
        f"Test top-1 in %, mean and standard deviation of {arguments.seeds} seeds.",
        "",
        "| model | rule | mean | deviation |",
        "|---|---|---|---|",
    ]
    for name, settings in MODELS.items():
        for rule in RULES:
            found = [accuracy(settings, rule, seed) for seed in range(arguments.seeds)]
            lines.append(f"| {name} | {rule} | {statistics.mean(found):.2f} | {statistics.stdev(found):.2f} |")
            print(lines[-1], flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "pool_decay.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
