"""Files of weights from anywhere: loaded as a user of timm expects, or named in one line."""

import argparse
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from cp_vision import UserError
from cp_vision.recipes import Recipe
from cp_vision.recipes.models import build_model, data_config, new_head, save_model
from cp_vision.recipes.weights import read_weights

ARGS = {"num_classes": 5, "img_size": 32}


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return timm.create_model("test_vit", **ARGS).eval()


def prefixed(prefix):
    return lambda state, file: torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, file)


FILES = {
    "plain": torch.save,
    "safetensors": save_file,
    "timm": lambda state, file: torch.save({"state_dict": state, "args": argparse.Namespace(lr=1), "epoch": 3}, file),
    "averaged": lambda state, file: torch.save(
        {"state_dict": {key: value + 1 for key, value in state.items()}, "state_dict_ema": state}, file
    ),
    "DDP": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "both": prefixed("module._orig_mod."),
    "Lightning": prefixed("model."),
    "DeiT": lambda state, file: torch.save({"model": state, "optimizer": {}}, file),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(("name", "more"), [("test_vit", {}), ("cp_test_vit", {"pools": ["blocks.1"]})])
@torch.inference_mode()
def test_weights_of_anybodys(kind, name, more, plain, tmp_path):
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    FILES[kind](plain.state_dict(), file)
    model = build_model(name, ARGS | more, checkpoint=str(file)).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x), plain(x))
    assert "state_dict" not in model.pretrained_cfg


def test_a_head_of_other_classes_is_new_where_that_is_wanted_and_else_named(plain, tmp_path):
    file, args = str(tmp_path / "weights.pth"), ARGS | {"num_classes": 3}
    torch.save(plain.state_dict(), file)
    model = build_model("cp_test_vit", args, checkpoint=file, new_head=True)
    assert model.get_classifier().out_features == 3
    assert torch.equal(model.blocks[0].norm1.weight, plain.blocks[0].norm1.weight)
    assert "for 5 classes" in new_head("cp_test_vit", args, file)
    assert new_head("cp_test_vit", ARGS, file) is new_head("cp_test_vit", ARGS, None) is None
    with pytest.raises(UserError, match=r"weights\.pth.* 5 .* 3"):
        build_model("cp_test_vit", args, checkpoint=file)


def cut_off(plain, file):
    torch.save(plain.state_dict(), file)
    file.write_bytes(file.read_bytes()[:5000])


BAD = {
    "cut off": (cut_off, "cut off"),
    "whole model": (torch.save, r"torch\.save\(model\.state_dict"),
    "text": (lambda _, file: file.write_text("model: resnet50\n"), "no file of weights"),
    "empty": (lambda _, file: file.write_bytes(b""), "cut off"),
    "a list": (lambda _, file: torch.save([1, 2], file), "weights"),
    "no tensors": (lambda _, file: torch.save({"epoch": 3}, file), "no weights"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_what_is_no_weights_is_one_short_line(kind, ending, plain, tmp_path):
    write, words = BAD[kind]
    write(plain, tmp_path / f"file.{ending}")
    with pytest.raises(UserError, match=words if ending == "pth" else "file") as told:
        read_weights(str(tmp_path / f"file.{ending}"), plain.state_dict())
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


def test_no_such_file():
    with pytest.raises(UserError, match="none"):
        build_model("test_vit", {}, checkpoint="none.pth")


STORED_CFG = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "crop_pct": 0.8}


@pytest.fixture
def stored(plain, tmp_path):
    """A model as a folder, with statistics of its own."""
    save_model(plain, tmp_path / "stored", {"input_size": (3, 32, 32), **STORED_CFG})
    return f"local-dir:{tmp_path / 'stored'}"


@pytest.mark.parametrize(("name", "more"), [("test_vit", {}), ("cp_test_vit", {"pools": ["blocks.1"]})])
@torch.inference_mode()
def test_a_folder_gives_weights_and_says_how_images_are_prepared(name, more, plain, stored):
    model = build_model(name, ARGS | more, checkpoint=stored).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x), plain(x))
    config = data_config(model, Recipe(img_size=32))
    assert {key: config[key] for key in STORED_CFG} == STORED_CFG
    # The recipe's own win.
    assert data_config(model, Recipe(img_size=32, crop_pct=0.5))["crop_pct"] == 0.5


def test_what_a_folder_lacks_is_one_line(stored, tmp_path, monkeypatch):
    folder = Path(stored.removeprefix("local-dir:"))
    with pytest.raises(UserError, match=r"holds test_vit with .*test_resnet"):
        build_model("test_resnet", {"num_classes": 5}, checkpoint=stored)
    with pytest.raises(UserError, match="tells 5 classes apart"):
        build_model("test_vit", ARGS | {"num_classes": 3}, checkpoint=stored)
    for name, damage in (("model.safetensors", b"x" * 100), ("config.json", b"{")):
        kept = (folder / name).read_bytes()
        for content in (damage, None):
            (folder / name).unlink()
            if content is not None:
                (folder / name).write_bytes(content)
            with pytest.raises(UserError, match=re.escape(stored)) as error:
                build_model("test_vit", ARGS, checkpoint=stored)
            assert "\n" not in str(error.value)
            (folder / name).write_bytes(kept)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hf-hub:nobody/nothing.*local-dir:"):
        build_model("test_vit", ARGS, checkpoint="hf-hub:nobody/nothing")
