"""Scoring a model: cp-train --eval."""

import json
import shutil

import pytest
import torch
from digits_folder import FOLDER, sets
from mistakes import assert_one_line_mistake
from PIL import Image
from timm.data import create_transform

import cp_vision
from cp_vision import UserError
from cp_vision.recipes import load_recipe, open_splits, score_model
from cp_vision.recipes.cli import main
from cp_vision.recipes.models import load_model


def right_of(model, recipe, classes):
    """Percent of the validation images of some classes that a model gets right, read and counted here."""
    _, split = open_splits(recipe)
    images = [(image, target) for image, target in split if target in classes]
    keys = ("input_size", "mean", "std", "interpolation", "crop_pct")
    transform = create_transform(**{key: model.pretrained_cfg[key] for key in keys})
    with torch.inference_mode():
        found = [int(model(transform(image)[None]).argmax()) == target for image, target in images]
    return 100 * sum(found) / len(found)


def test_a_model_is_scored_with_the_classes_it_was_trained_on(folder_training, image_folder, tmp_path):
    output, recipe, summary = folder_training
    model = load_model(output / "last").eval()
    assert summary["top1"] > 50
    assert summary["top1"] == pytest.approx(right_of(model, recipe, {0, 1, 2}))
    # Without class 0 the folders alone would be numbered 1 -> 0, 2 -> 1; with the training split or without.
    shutil.copytree(image_folder, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "val" / "0")
    expected = right_of(model, recipe, {1, 2})
    recipe = recipe.with_values(data_dir=str(tmp_path / "data"))
    for what in ("last", "last/model.safetensors"):
        assert score_model(recipe, str(output / what))["top1"] == pytest.approx(expected)
    shutil.rmtree(tmp_path / "data" / "train")
    (tmp_path / "data" / "train").mkdir()
    assert score_model(recipe, str(output / "last"))["top1"] == pytest.approx(expected)


def test_the_command_scores_a_model_and_sends_from_a_trainings_folder_to_its_models(
    folder_training, image_folder, capsys
):
    output, _, summary = folder_training
    arguments = ["default", "--data-dir", str(image_folder), *sets(FOLDER), "--eval"]
    assert main([*arguments, str(output / "best")]) == 0
    assert f"top-1 {summary['best']['top1']:.2f} %" in capsys.readouterr().out
    assert_one_line_mistake(main, [*arguments, str(output)], capsys, [f"{output}/best", f"{output}/last"])


def test_the_summary_tells_the_models_macs_and_the_recipe_trains_it_again(folder_training):
    output, recipe, _ = folder_training
    summary = json.loads((output / "summary.json").read_text())
    assert summary["macs"] == cp_vision.count_macs(load_model(output / "last"))
    assert load_recipe(output / "recipe.yaml") == recipe


def test_a_model_of_other_classes_is_not_scored(folder_training, tmp_path, capsys):
    shutil.copytree(folder_training[0] / "last", tmp_path / "last")
    (tmp_path / "val" / "cat").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "val" / "cat" / "1.png")
    command = ["default", "--data-dir", str(tmp_path), "--eval", str(tmp_path / "last")]
    assert_one_line_mistake(main, command, capsys, ["'validation'", "cat"])
    (tmp_path / "last" / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="last"):
        load_model(tmp_path / "last")


def test_any_split_is_scored_also_the_training_split(folder_training, image_folder, capsys):
    output, recipe, _ = folder_training
    # The right ones counted on the same images as a validation split of their own.
    swapped = recipe.with_values(train_split="validation", val_split="train")
    model = load_model(output / "last").eval()
    expected = f"top-1 {right_of(model, swapped, {0, 1, 2}):.2f} %"
    arguments = ["default", "--data-dir", str(image_folder), *sets(FOLDER), "--set", "val_split=train"]
    for what in ("last", "last/model.safetensors"):
        assert main([*arguments, "--eval", str(output / what)]) == 0
        assert expected in capsys.readouterr().out
    named = ["train_split", "val_split", "'train'"]
    for command in (["--dry-run"], ["--output", str(output.parent / "same")]):
        assert_one_line_mistake(main, [*arguments, *command], capsys, named)
