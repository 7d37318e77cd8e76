"""Where a bare ``cp_`` name pools."""

import copy

import pytest
import timm
import torch
import torchvision
from small_models import images

import cp_vision
from cp_vision.anatomy.default_pools import default_pools
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.surgery.insert_pools import POOL_MODES


@pytest.mark.parametrize(
    ("base", "coarse"), [("darknet53", True), ("nf_resnet50", True), ("repvgg_a0", True), ("test_vit_relpos", False)]
)
def test_what_weighs_channels_makes_no_transformer(base, coarse):
    """Modules that timm calls attn, or none in their place: a ConvNet's default pools stay off its fine maps."""
    with torch.device("meta"):
        model = timm.create_model(base)
    wanted = [block.name for block in list_blocks(model) if block.reduction >= 16 or not coarse]
    assert list(default_pools(model)) == wanted


def test_dilated_stages_are_fine_maps():
    dilated = torchvision.models.get_model("resnet50", replace_stride_with_dilation=[False, True, True])
    assert {block.reduction for block in list_blocks(dilated)} == {4, 8}
    assert default_pools(dilated) == ()
    plain = torchvision.models.get_model("resnet50")
    wanted = default_pools(plain)
    cp_vision.insert_pools(plain, ["maxpool", "layer2.0.downsample", "layer3.0.downsample"])
    assert default_pools(plain) == wanted


def test_the_last_block_that_is_found_need_not_be_the_models_last():
    with torch.device("meta"):
        model = timm.create_model("pit_ti_224")
    assert default_pools(model) == tuple(block.name for block in list_blocks(model))


@pytest.mark.parametrize(("name", "mode"), [(f"cp_test_{vit}", m) for vit in ("vit", "vit2") for m in POOL_MODES])
@torch.inference_mode()
def test_each_pool_of_the_default_has_an_effect(name, mode):
    """After the last block of a ViT only its class token may be looked at, which isn't pooled."""
    model = timm.create_model(name, pool_options={"mode": mode}).eval()
    x = images(size=(160, 160))
    pools = [module for module in model.modules() if isinstance(module, cp_vision.ContextPool2d)]
    assert len(pools) == len(model.blocks) - (model.global_pool == "token" and mode != "pre_attn")
    before = model(x)
    for pool in pools:
        old = copy.deepcopy(pool.state_dict())
        for parameter in pool.parameters():
            torch.nn.init.normal_(parameter)
        assert not torch.equal(model(x), before)
        pool.load_state_dict(old)
    assert torch.equal(model(x), before)


def test_class_attention_looks_at_what_the_last_block_gives():
    with torch.device("meta"):
        model = timm.create_model("cait_xxs24_224")
    assert default_pools(model)[-1] == list_blocks(model)[-1].name
