"""Folders of images as people have them: what is a class, what is left out, what is said of it."""

import shutil

import pytest
from digits_folder import FOLDER, sets
from mistakes import assert_one_line_mistake

from cp_vision import UserError
from cp_vision.recipes import Recipe, open_splits
from cp_vision.recipes.cli import main
from cp_vision.recipes.data.open import count_classes, fingerprint_of, found_in


@pytest.fixture
def own(image_folder, tmp_path):
    return shutil.copytree(image_folder, tmp_path / "own")


def first(folder):
    return next(iter(sorted(folder.glob("*.png"))))


def hidden_folder(root):
    (root / "train" / ".ipynb_checkpoints").mkdir()
    shutil.copy(first(root / "train" / "0"), root / "train" / ".ipynb_checkpoints" / "0-checkpoint.png")
    shutil.copytree(root / "train" / ".ipynb_checkpoints", root / "train" / "1" / ".ipynb_checkpoints")


def files_of_macos(root):
    for image in list(root.glob("*/*/*.png")):
        image.with_name(f"._{image.name}").write_bytes(b"\0\5\x16\7")
    (root / "train" / "__MACOSX").mkdir()
    shutil.copy(first(root / "train" / "0"), root / "train" / "__MACOSX")


def image_in_no_class(root):
    shutil.copy(first(root / "train" / "0"), root / "train" / "stray.png")


def empty_folder(root):
    (root / "train" / "3").mkdir()


def deeper(root):
    for image in list(root.glob("*/*/*.png")):
        (image.parent / "2021" / "may").mkdir(parents=True, exist_ok=True)
        image.rename(image.parent / "2021" / "may" / image.name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (hidden_folder, "2 hidden files and folders"),
        (files_of_macos, "61 hidden files and folders"),
        (image_in_no_class, "1 images in no class's folder"),
        (empty_folder, "1 folders without images"),
        (deeper, "60 images in 'train'"),
    ],
)
def test_what_is_no_image_of_a_class_is_left_out_and_said(change, said, own):
    recipe = Recipe(data_dir=str(own))
    before = open_splits(recipe)
    change(own)
    train, test = open_splits(recipe)
    assert train.classes == test.classes == {"0": 0, "1": 1, "2": 2}
    assert (train.targets(), test.targets()) == (before[0].targets(), before[1].targets())
    found = found_in(train, test, ("train", "validation"))
    assert found.startswith("3 classes (0, 1, 2), 60 images in 'train'")
    assert said in found


def test_a_class_without_images_to_test_on_is_said(own):
    shutil.rmtree(own / "val" / "1")
    assert "none in 'validation' of 1" in found_in(*open_splits(Recipe(data_dir=str(own))), ("train", "validation"))


def one_class(root):
    for split in ("train", "val"):
        for label in "12":
            shutil.rmtree(root / split / label)


def no_class(root):
    for image in list(root.glob("*/*/*.png")):
        image.rename(image.parent.parent / f"{image.parent.name}-{image.name}")


@pytest.mark.parametrize(("change", "words"), [(one_class, ["1 class", "own"]), (no_class, ["60 images in no class"])])
def test_a_folder_that_tells_nothing_apart_is_refused(change, words, own, tmp_path, capsys):
    change(own)
    command = ["default", *sets(FOLDER), "--data-dir", str(own), "--output", str(tmp_path / "run")]
    assert_one_line_mistake(main, command, capsys, words)


def test_the_same_files_in_the_same_classes_are_the_same_wherever_they_lie(own, image_folder):
    def fingerprint(root):
        return fingerprint_of(*open_splits(Recipe(data_dir=str(root))))

    assert fingerprint(own) == fingerprint(image_folder)
    hidden_folder(own)
    assert fingerprint(own) == fingerprint(image_folder)
    first(own / "train" / "0").rename(own / "train" / "0" / "another.png")
    assert fingerprint(own) != fingerprint(image_folder)


def test_columns_are_no_matter_of_folders(image_folder):
    with pytest.raises(UserError, match="input_key"):
        open_splits(Recipe(data_dir=str(image_folder), input_key="img"))


def test_one_class_is_counted_by_nobody(own):
    one_class(own)
    recipe = Recipe(data_dir=str(own))
    with pytest.raises(UserError, match="1 class"):
        count_classes(open_splits(recipe)[0], recipe)
