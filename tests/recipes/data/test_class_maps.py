"""Class maps."""

import pickle
from pathlib import Path

import pytest
from digits_folder import FOLDER, sets
from mistakes import assert_one_line_mistake

from cp_vision import UserError
from cp_vision.recipes import Training, load_recipe, score_model
from cp_vision.recipes.cli import main
from cp_vision.recipes.models import load_model


def test_a_class_map_may_merge_folders_and_leave_gaps(image_folder, tmp_path):
    numbers, labels = {"0": 0, "1": 0, "2": 3}, {"0": "0, 1", "3": "2"}
    (tmp_path / "map.pkl").write_bytes(pickle.dumps(numbers))
    recipe = load_recipe("default", [*FOLDER, f"data_dir={image_folder}", f"class_map={tmp_path}/map.pkl"])
    summary = Training(recipe, tmp_path / "model").run()
    last = tmp_path / "model" / "last"
    model = load_model(last)
    assert model.num_classes == max(numbers.values()) + 1
    assert model.pretrained_cfg["label_names"] == labels
    for what in (last, last / "model.safetensors"):
        assert score_model(recipe, str(what))["top1"] == summary["top1"]
    # Whatever the recipe says by then, it is scored by the numbers that it learned.
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"0": 1, "1": 2, "2": 0}))
    for class_map in (None, str(tmp_path / "other.pkl")):
        assert score_model(recipe.with_values(class_map=class_map), str(last))["top1"] == summary["top1"] > 50
    with pytest.raises(UserError, match="num_classes 7"):
        score_model(recipe.with_values(num_classes=7), str(last))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (pickle.dumps({"0": "zero", "1": "one", "2": "two"}), "class_map"),
        (pickle.dumps({"0": -1, "1": 0, "2": 1}), "class_map"),
        # It would run code.
        (pickle.dumps(Path), "class map"),
        (b"", "'train'"),
    ],
)
def test_wrong_class_maps(content, name, image_folder, tmp_path, capsys):
    (tmp_path / "map.pkl").write_bytes(content)
    settings = sets([*FOLDER, f"data_dir={image_folder}", f"class_map={tmp_path}/map.pkl"])
    assert_one_line_mistake(main, ["default", *settings, "--output", str(tmp_path / "model")], capsys, [name])
