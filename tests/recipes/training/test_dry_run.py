"""Dry runs."""

import os
import sys

import pytest
from digits_folder import sets

from cp_vision.recipes import Recipe, load_recipe
from cp_vision.recipes.cli import main
from cp_vision.recipes.data.training_loader import worker_count
from cp_vision.recipes.recipe.keys import BUNDLED
from cp_vision.recipes.training.dry_run import resident_memory


def test_a_dry_run_without_data_says_that_it_assumes_imagenet(capsys):
    small = sets(["model=cp_test_vit", "img_size=32"])
    for arguments, images in ((["default"], "ImageNet's 1,281,167"), (["digits"], "1,437")):
        assert main([*arguments, *small, "--dry-run"]) == 0
        assert f"10 epochs of {images} images" in capsys.readouterr().out
    assert main(["fashion_mnist", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error == "cp-train: error: data set 'torch/fashion_mnist' needs --data-dir, the folder it lies in\n"


def test_systems_other_than_linux(monkeypatch):
    """macOS knows no affinity and counts the memory in bytes."""
    kilobytes, workers = resident_memory(), worker_count(Recipe(workers=1000))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers <= worker_count(Recipe(workers=1000)) == os.cpu_count()
    assert worker_count(Recipe(workers=1)) == 1
    monkeypatch.setattr(sys, "platform", "darwin")
    assert 2**20 < kilobytes <= resident_memory() * 1024


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_takes_a_step(path, capsys):
    recipe = load_recipe(path)
    if recipe.dataset.startswith("torch/"):
        pytest.skip("tests/recipes/data/test_data_sets_of_timm.py has its data")
    # Minutes in bfloat16 where a CPU has none; its smaller sister takes the same step in it.
    precision = ["--set", "amp=false"] if path.stem == "cp_vit_base_deit" else []
    assert main([str(path), "--dry-run", *precision]) == 0
    model, step, run = capsys.readouterr().out.splitlines()
    assert model.startswith(f"{recipe.model}: ")
    assert " GiB of memory" in step
    assert ("fewer than the recipe's" in step) is (recipe.batch_size > 2)
    assert f"{recipe.epochs} epochs of " in run
