"""Blocks that are found by running a model once."""

import pytest
import timm
import torch
import torchvision
from small_models import close, images, stir

import cp_vision
from cp_vision.anatomy.known_families import list_blocks


def test_maps_whose_sides_round_unevenly_are_read_as_they_lie():
    overlay = {"input_size": (3, 250, 300)}
    model = timm.create_model("context_pooled", base="efficientnet_b0", pretrained_cfg_overlay=overlay)
    assert {block.layout for block in list_blocks(model)} == {"NCHW"}


@torch.inference_mode()
def test_a_block_that_splits_its_input_tells_the_stages_width_by_its_shortcut():
    model = timm.create_model("context_pooled", base="skresnet18", pools=["layer2.0.downsample"]).eval()
    assert model(images()).shape == (1, 1000)


def test_as_many_channels_as_rows_and_columns():
    """The other stages tell how maps lie."""
    model = timm.create_model("test_mambaout", dims=(40, 32, 48, 64))
    assert {block.layout for block in list_blocks(model)} == {"NHWC"}


def test_a_patch_embedding_that_knows_nothing_but_its_grid():
    assert cp_vision.find_sites(timm.create_model("pit_ti_224"))[-1].grid == (27, 27)


def test_a_model_without_default_pools_says_which_blocks_there_are():
    with pytest.raises(cp_vision.UserError, match=r"pools=.* stages\.0"):
        timm.create_model("context_pooled", base="caformer_s18")


@pytest.mark.parametrize(
    ("base", "block", "no_block"),
    [
        ("hgnetv2_b0", "stages.2.blocks.1", "stages.2.blocks.1.layers.0"),
        ("dpn48b", "features.conv5_3", "features.conv5_bn_ac"),
        ("volo_d1_224", "network.0.0", "network.1"),
    ],
)
def test_blocks_are_neither_their_parts_nor_what_stands_between(base, block, no_block):
    with torch.device("meta"):
        model = timm.create_model(base)
    names = [block.name for block in list_blocks(model)]
    assert block in names
    assert no_block not in names


@torch.inference_mode()
def test_what_timm_fuses_keeps_its_pools():
    model = timm.create_model("shvit_s1").eval()
    stir(cp_vision.insert_pools(model, [block.name for block in list_blocks(model)]))
    x = torch.randn(1, 3, 224, 224)
    fused = timm.utils.reparameterize_model(model)
    pools = [[n for n, m in each.named_modules() if isinstance(m, cp_vision.ContextPool2d)] for each in (model, fused)]
    assert pools[0] == pools[1] != []
    close(fused(x), model(x))


def meta_blocks(base):
    with torch.device("meta"):
        return [block.name for block in list_blocks(timm.create_model(base))]


@pytest.mark.parametrize(
    ("base", "blocks"), [("mixer_s32_224", 8), ("resmlp_12_224", 12), ("gmlp_ti16_224", 30), ("gcvit_xxtiny", 12)]
)
def test_blocks_are_found_and_parts_of_side_branches_are_not(base, blocks):
    assert len(meta_blocks(base)) == blocks


def test_a_block_is_a_whole_layer_where_layers_have_parts_of_their_own():
    with torch.device("meta"):
        model = torchvision.models.maxvit_t()
    names = [block.name for block in list_blocks(model, (3, 224, 224))]
    assert names[:2] == ["blocks.0.layers.0", "blocks.0.layers.1"]


def test_a_whole_stage_of_windows_is_no_block():
    with pytest.raises(cp_vision.UserError, match="Nest"):
        meta_blocks("nest_tiny")


@torch.inference_mode()
def test_pools_of_a_mixer_see_its_grid():
    plain = timm.create_model("mixer_s32_224", num_classes=5).eval()
    x = torch.rand(1, 3, 224, 224)
    before = plain(x)
    model = cp_vision.insert_pools(plain, ["blocks.1", "blocks.7"])
    close(model(x), before)
    assert stir(model)(x).shape == (1, 5)
    assert cp_vision.find_sites(model)[0].grid == (7, 7)


def test_the_stages_of_a_regnet_are_rows_without_the_regnet():
    with torch.device("meta"):
        model, whole = (timm.create_model("regnety_002", features_only=only) for only in (True, False))
    assert [block.name for block in list_blocks(model)] == [block.name for block in list_blocks(whole)]


@pytest.mark.parametrize(
    ("base", "options", "name"),
    [
        ("regnety_002", {}, "RegNet"),
        ("resnet18", {"features_only": True}, "FeatureListNet"),
        ("mixer_s32_224", {}, "MlpMixer"),
    ],
)
def test_a_model_in_a_module_of_the_users_is_named(base, options, name):
    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = timm.create_model(base, **options)

        def forward(self, x):
            return self.backbone(x)[-1]

    with torch.device("meta"):
        model = Mine()
    with pytest.raises(cp_vision.UserError, match=f"Mine models .* 'backbone' is: give that {name} itself"):
        list_blocks(model)
