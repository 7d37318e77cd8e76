"""Splits of a data set: held out, separate, with one numbering of classes."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from cp_vision import UserError
from cp_vision.recipes import Recipe, hold_out, load_recipe, open_splits
from cp_vision.recipes.data.open import count_classes, open_split


def test_held_out_part():
    recipe = load_recipe("digits")
    whole, _ = open_splits(recipe)
    train_part, held_out = hold_out(whole, 0.2)
    assert len(train_part) + len(held_out) == 1437
    assert set(train_part.indices).isdisjoint(held_out.indices)
    assert hold_out(open_splits(recipe.with_values(seed=7))[0], 0.2)[1].indices == held_out.indices
    train_part.transform = "one"
    assert held_out.transform is None
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(UserError, match="0 and below 1"):
            hold_out(whole, fraction)
    with pytest.raises(UserError, match=r"0\.0001"):
        hold_out(whole, 0.0001)


def test_image_folder(image_folder):
    recipe = Recipe(data_dir=str(image_folder))
    train_split, test_split = open_splits(recipe)
    train_part, held_out = hold_out(train_split, 0.25)
    assert (len(train_part), len(held_out), len(test_split)) == (45, 15, 30)
    assert count_classes(train_part, recipe) == 3
    assert test_split[0][0].mode == "RGB"
    assert open_split(recipe.with_values(in_chans=1), "validation")[0][0].mode == "L"
    for count in (2, 1000):
        with pytest.raises(UserError, match=rf"num_classes {count}\b.* 3\b"):
            count_classes(train_part, recipe.with_values(num_classes=count))


@pytest.mark.parametrize("dataset", ["", "torch/image_folder"])
def test_classes_have_one_numbering_or_are_refused(dataset, image_folder, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(image_folder, root)
    recipe = Recipe(data_dir=str(root), dataset=dataset)
    assert open_splits(recipe)[1].classes == {"0": 0, "1": 1, "2": 2}
    # Without class 0 the folders of the test split alone would be numbered 1 -> 0, 2 -> 1.
    shutil.rmtree(root / "val" / "0")
    if dataset:
        with pytest.raises(UserError, match="'validation'"):
            open_splits(recipe)
    else:
        _, test_split = open_splits(recipe)
        assert set(test_split.targets()) == {1, 2}
        assert all(Path(file).parent.name == str(target) for file, target in test_split.dataset.reader.samples)
    (root / "val" / "cat").mkdir()
    Image.new("L", (8, 8)).save(root / "val" / "cat" / "1.png")
    with pytest.raises(UserError, match=r"'validation'.*'train'.*cat"):
        open_splits(recipe)


@pytest.mark.parametrize("dataset", ["", "torch/image_folder"])
def test_a_folder_without_splits_is_refused(dataset, image_folder):
    with pytest.raises(UserError, match="train/ and validation/"):
        open_splits(Recipe(data_dir=str(image_folder / "train"), dataset=dataset))
