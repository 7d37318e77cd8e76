"""Dry runs."""

import os
import sys

import pytest
from digits_folder import sets
from mistakes import assert_one_line_mistake

from cp_vision.recipes import Recipe, load_recipe
from cp_vision.recipes.cli import main
from cp_vision.recipes.data.training_loader import worker_count
from cp_vision.recipes.recipe.keys import bundled_recipes
from cp_vision.recipes.training.dry_run import resident_memory

# tests/recipes/data/test_data_sets_of_timm.py has the data of the one; the other says what cp_vit_small_deit says, of a
# larger model.
ELSEWHERE = {"fashion_mnist", "cp_vit_base_deit"}


def test_a_dry_run_without_data_says_that_it_assumes_imagenet(capsys):
    small = sets(["model=cp_test_vit", "img_size=32", "amp=true"])
    for arguments, images in ((["default"], "ImageNet's 1,281,167"), (["digits"], "1,437")):
        assert main([*arguments, *small, "--dry-run"]) == 0
        assert f"10 epochs of {images} images" in capsys.readouterr().out
    assert_one_line_mistake(main, ["fashion_mnist", "--dry-run"], capsys, ["'torch/fashion_mnist'", "--data-dir"])


def test_what_a_larger_recipe_says_beside_its_sister_is_its_model():
    large, small = load_recipe("cp_vit_base_deit"), load_recipe("cp_vit_small_deit")
    assert large == small.with_values(model=large.model)


def test_systems_other_than_linux(monkeypatch):
    """macOS knows no affinity and counts the memory in bytes."""
    kilobytes, workers = resident_memory(), worker_count(Recipe(workers=1000))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers <= worker_count(Recipe(workers=1000)) == os.cpu_count()
    assert worker_count(Recipe(workers=1)) == 1
    monkeypatch.setattr(sys, "platform", "darwin")
    assert 2**20 < kilobytes <= resident_memory() * 1024


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({path.stem for path in bundled_recipes()} - ELSEWHERE))
def test_every_recipe_takes_a_step(name, capsys):
    recipe = load_recipe(name)
    # Processors without bfloat16 take ten times as long with it.
    assert main([name, "--dry-run", *sets(["amp=false"])]) == 0
    model, step, run = capsys.readouterr().out.splitlines()
    assert model.startswith(f"{recipe.model}: ")
    assert " GiB of memory" in step
    assert ("fewer than the recipe's" in step) is (recipe.batch_size > 2)
    assert f"{recipe.epochs} epochs of " in run
