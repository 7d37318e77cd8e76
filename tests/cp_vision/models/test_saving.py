"""A saved model loads as what it is, however its pools and drops came about."""

import json

import pytest
import timm
import torch
from small_models import images, small, stir
from timm.models import get_model_input_config, save_for_hf

import cp_vision
from cp_vision.anatomy.known_families import list_blocks


def test_a_saved_model_takes_a_new_head(tmp_path):
    model = small("cp_test_vit", drops=["blocks.1"], pools=["blocks.0", "blocks.3"])
    save_for_hf(model, tmp_path, safe_serialization=True)
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3).eval()
    x = images()
    torch.testing.assert_close(other.forward_features(x), model.forward_features(x))
    assert other(x).shape == (1, 3)


@torch.inference_mode()
def test_a_model_changed_by_hand_is_saved_as_what_it_is(tmp_path):
    for base in ("resnet18", "test_efficientnet"):
        model = timm.create_model(base, num_classes=4).eval()
        cfg = dict(model.pretrained_cfg)
        blocks = list_blocks(model)
        first, second, *_, last = (block.name for block in blocks)
        cp_vision.insert_pools(model, [first], hidden=3)
        cp_vision.insert_pools(stir(model), [second], hidden=3)
        drop = next((b.name for b in blocks[2:] if b.droppable), None)
        cp_vision.drop_blocks(model, [drop] if drop else [])
        save_for_hf(model, tmp_path / base, safe_serialization=True)
        loaded = timm.create_model(f"local-dir:{tmp_path / base}", pretrained=True).eval()
        x = torch.randn(1, *get_model_input_config(model)["input_size"])
        assert torch.equal(loaded(x), model(x))
        assert timm.create_model(base).pretrained_cfg == cfg | {"num_classes": cfg["num_classes"]}
        # Options that differ among sites are noted by site.
        cp_vision.insert_pools(model, [last], hidden=2)
        save_for_hf(stir(model), tmp_path / "mixed", safe_serialization=True)
        loaded = timm.create_model(f"local-dir:{tmp_path / 'mixed'}", pretrained=True).eval()
        assert torch.equal(loaded(x), model(x))
        noted = json.loads((tmp_path / "mixed" / "config.json").read_text())["model_args"]["pools"]
        assert noted == {first: {"hidden": 3}, second: {"hidden": 3}, last: {"hidden": 2}}


@pytest.mark.parametrize(
    ("first", "options", "then", "mode"),
    [
        (["blocks.0"], {"mode": "gated"}, {}, "gated"),
        (["blocks.0"], {"backend": "auto"}, {}, "gated"),
        ([], {"mode": "replace"}, {}, "gated"),
        (["blocks.0"], {"mode": "replace"}, {"mode": "replace", "hidden": None}, "replace"),
    ],
)
def test_equal_options_are_saved_however_they_are_told(first, options, then, mode, tmp_path):
    model = timm.create_model("cp_test_vit", pools=first, pool_options=options)
    cp_vision.insert_pools(model, ["blocks.1"], **then)
    save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert loaded.blocks[1].context_pool.mode == mode
    assert list(loaded.state_dict()) == list(model.state_dict())


@torch.inference_mode()
def test_a_named_model_with_options_by_site_loads_and_is_changed_further(tmp_path):
    pools = {"blocks.0": {}, "blocks.2": {"mode": "replace", "hidden": 3}, "blocks.3": {"mode": "pre_attn"}}
    args = {"pools": pools, "pool_options": {"support_range": 0.3}, "drops": ["blocks.1"]}
    model = stir(timm.create_model("cp_test_vit", **args).eval())
    cp_vision.insert_pools(model, ["blocks.4"])
    save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 3, 160, 160)
    assert torch.equal(loaded(x), model(x))
    assert loaded.blocks[3].context_pool.support_range == 0.3
    assert loaded.blocks[4].context_pool.support_range == 0.1


@torch.inference_mode()
def test_a_saved_model_takes_another_image_size_and_other_channels(tmp_path):
    model = stir(timm.create_model("cp_test_vit", drops=["blocks.1"], pools=["blocks.0", "blocks.3"]).eval())
    save_for_hf(model, tmp_path, safe_serialization=True)
    name = f"local-dir:{tmp_path}"
    other = timm.create_model(name, pretrained=True, img_size=96, in_chans=1).eval()
    assert torch.equal(other.blocks[3].context_pool.gate, model.blocks[3].context_pool.gate)
    assert other.pos_embed.shape[1] < model.pos_embed.shape[1]
    torch.testing.assert_close(other.patch_embed.proj.weight, model.patch_embed.proj.weight.sum(1, keepdim=True))
    assert other(torch.randn(1, 1, 96, 96)).isfinite().all()
