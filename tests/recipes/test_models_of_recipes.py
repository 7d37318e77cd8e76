"""Models as a recipe wants them, and on disk."""

import pytest
import timm
import torch
from digits_folder import CPU, FOLDER, sets
from timm.data import resolve_model_data_config

from cp_vision import UserError
from cp_vision.recipes import load_recipe
from cp_vision.recipes.cli import main
from cp_vision.recipes.models import build_model, data_config, load_model, model_args, save_model
from cp_vision.recipes.training.task import make_task


def test_grey_images_and_three_channels(image_folder, tmp_path):
    arguments = ["default", "--data-dir", str(image_folder), *sets([*FOLDER, "epochs=1", "in_chans=1"])]
    assert main([*arguments, "--output", str(tmp_path / "grey")]) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'grey' / 'last'}", pretrained=True)
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    assert len(resolve_model_data_config(model)["mean"]) == 1


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (["model=cp_test_resnet", "in_chans=1"], (1, 160, 160)),
        (["model=cp_test_vit", "in_chans=1", "model_kwargs={img_size: 64}"], (1, 64, 64)),
        (["model=cp_test_vit2", "model_kwargs={patch_size: 8, img_size: 32}"], (3, 32, 32)),
        (["model=cp_test_resnet", "img_size=48"], (3, 48, 48)),
    ],
)
def test_images_are_of_the_size_that_the_model_was_built_for(settings, size):
    settings = ["img_size=null", *settings]
    recipe = load_recipe("digits", settings)
    model = build_model(recipe.model, model_args(recipe.model, recipe, 10, recipe.model_kwargs))
    assert data_config(model, recipe)["input_size"] == size
    assert main(["digits", *sets([*settings, "amp=false"]), "--dry-run"]) == 0


def test_channels_last_weights_are_saved_for_everybody(tmp_path):
    model = build_model("cp_test_resnet", {"num_classes": 10}).to(memory_format=torch.channels_last)
    save_model(model, tmp_path / "last", data_config(model, load_recipe("digits")))
    loaded = load_model(tmp_path / "last")
    assert loaded.conv1[0].weight.is_contiguous()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_model_without_stochastic_depth_is_not_given_any():
    recipe = load_recipe("digits", ["drop_path=0.1", "drop_path_uniform=true"])
    with pytest.raises(UserError, match="drop_path_uniform"):
        make_task(build_model("test_mambaout", {"num_classes": 10}).stem, recipe, CPU)
