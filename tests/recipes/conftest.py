"""Data and trainings that several files look at; none of them changes these."""

import pytest
from digits_folder import FOLDER, SMALL, sets, write_folder

from cp_vision.recipes import Training, load_recipe
from cp_vision.recipes.cli import main


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Ninety digits of three classes, in train/ and val/."""
    return write_folder(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a short training on digits with averaged weights, and its command."""
    folder = tmp_path_factory.mktemp("training") / "deep" / "run"
    command = ["digits", *sets([*SMALL, "model_ema=true", "model_ema_decay=0.9"]), "--output", str(folder)]
    assert main(command) == 0
    return folder, command


@pytest.fixture(scope="session")
def folder_training(image_folder, tmp_path_factory):
    """The folder of a training on the image folder, its recipe, and its summary."""
    output = tmp_path_factory.mktemp("on_folder") / "run"
    recipe = load_recipe("default", [*FOLDER, f"data_dir={image_folder}"])
    return output, recipe, Training(recipe, output).run()
