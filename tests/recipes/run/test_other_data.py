"""A training's folder belongs to its data: it answers for no other, and for the same wherever that lies."""

import json
import shutil
from pathlib import Path

import pytest
from digits_folder import FOLDER, sets
from mistakes import assert_one_line_mistake

from cp_vision.recipes import Training
from cp_vision.recipes.cli import main
from cp_vision.recipes.run.checkpoints import load_state, save_state
from cp_vision.shared.command_line import default_output


def renamed_classes(root):
    for split in ("train", "val"):
        for label, name in zip("012", "abc", strict=True):
            (root / split / label).rename(root / split / name)


def exchanged_images(root):
    one, other = root / "train" / "0" / "0.png", root / "train" / "1" / "1.png"
    one.rename(root / "train" / "1" / "0.png")
    other.rename(root / "train" / "0" / "1.png")


@pytest.mark.parametrize("change", [renamed_classes, exchanged_images])
@pytest.mark.parametrize("unfinished", [False, True])
def test_other_data_is_refused(change, unfinished, folder_training, image_folder, tmp_path, capsys):
    output, _, _ = folder_training
    copy, data = shutil.copytree(output, tmp_path / "run"), shutil.copytree(image_folder, tmp_path / "data")
    change(data)
    if unfinished:
        (copy / "summary.json").unlink()
    command = ["default", *sets(FOLDER), "--data-dir", str(data), "--output", str(copy)]
    assert_one_line_mistake(main, command, capsys, [str(copy), "--output"])


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_training_of_a_version_that_noted_no_data_is_named_as_that(unfinished, folder_training, tmp_path, capsys):
    folder, recipe, _ = folder_training
    old = shutil.copytree(folder, tmp_path / "old")
    state, _ = load_state(old)
    save_state({key: value for key, value in state.items() if key != "data"}, old)
    summary = json.loads((old / "summary.json").read_text())
    (old / "summary.json").unlink()
    if not unfinished:
        del summary["data"]
        (old / "summary.json").write_text(json.dumps(summary))
    command = ["default", "--data-dir", recipe.data_dir, *sets(FOLDER), "--output", str(old)]
    assert_one_line_mistake(main, command, capsys, ["cp-vision 0.1", "--output"])


def test_moved_data_is_the_same(folder_training, image_folder, tmp_path):
    output, recipe, summary = folder_training
    data = shutil.copytree(image_folder, tmp_path / "data")
    assert Training(recipe.with_values(data_dir=str(data)), output).finished == summary


def test_the_default_output_names_the_data():
    assert default_output("train-default", "/home/me/pets/") == "runs/train-default-pets"
    assert default_output("train-default", None) == "runs/train-default"
    assert default_output("resnet50", Path.cwd() / ".") == f"runs/resnet50-{Path.cwd().name}"
