"""Cost in MACs: of known models, of blocks and of pools."""

import pytest
import timm
import torch
from small_models import QUICK, base_of, build_meta, small_args
from torch import nn

import cp_vision
from cp_vision.cost.macs import pool_macs


@pytest.mark.parametrize(
    ("model", "macs"),
    [("resnet50", 4.09e9), ("vit_base_patch16_224", 17.58e9), ("deit_small_patch16_224", 4.61e9)],
)
def test_macs_of_known_models(model, macs):
    assert cp_vision.count_macs(model) == pytest.approx(macs, rel=0.01)
    assert cp_vision.count_macs(timm.create_model(model)) == cp_vision.count_macs(model)


# One of each layout and kind of down-sampling; what differs within a family is the walk's.
COSTED = (
    *("cp_resnet50d", "cp_regnety_002", "cp_convnext_tiny"),
    *("cp_swin_tiny_patch4_window7_224", "cp_vit_base_patch14_reg4_dinov2"),
)


@pytest.mark.parametrize("name", COSTED)
def test_cost_is_a_sum_over_blocks_and_pools(name):
    size, args = (3, 64, 96), small_args(name)
    base = build_meta(base_of(name), **args)
    sites = cp_vision.find_sites(base, size)
    blocks = [site for site in sites if site.kind == "block"]
    model = build_meta(name, **args, pools=[site.name for site in blocks])
    added = sum(cp_vision.pool_macs(model.get_submodule(s.name).context_pool, s.grid) for s in blocks)
    assert cp_vision.count_macs(model, size) == cp_vision.count_macs(base, size) + added
    assert cp_vision.find_sites(model, size) == sites
    drops = [site.name for site in sites if site.droppable][1:3]
    fewer = build_meta(name, **args, pools=(), drops=drops)
    saved = sum(site.macs for site in sites if site.name in drops)
    assert cp_vision.count_macs(fewer, size) == cp_vision.count_macs(base, size) - saved


def test_a_blocks_cost_leaves_out_the_pool_of_its_down_sampling():
    model = timm.create_model("test_resnet")
    plain = cp_vision.count_macs(model)
    cp_vision.insert_pools(model, ["layer2.0.downsample"])
    sites = {site.name: site for site in cp_vision.find_sites(model)}
    down = sites["layer2.0.downsample"]
    pool = cp_vision.count_macs(model) - plain - (sites["layer2.0"].macs - macs_of(timm.create_model("test_resnet")))
    assert pool == pool_macs(model.layer2[0].downsample.context_pool, down.grid)


def macs_of(model):
    return next(site.macs for site in cp_vision.find_sites(model) if site.name == "layer2.0")


@pytest.mark.parametrize("wrap", [nn.DataParallel, timm.utils.ModelEmaV3, torch.compile])
def test_wrappers_cost_what_they_hold(wrap):
    model = timm.create_model("test_vit")
    assert cp_vision.count_macs(wrap(model)) == cp_vision.count_macs(model)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in QUICK if name not in COSTED])
def test_cost_is_a_sum_in_every_kind_of_model(name):
    test_cost_is_a_sum_over_blocks_and_pools(name)


def test_cost_is_the_same_in_inference_mode():
    """Where torch calls its operators by other names."""
    plain = timm.create_model("test_vit")
    macs, sites = cp_vision.count_macs(plain), cp_vision.find_sites(plain)
    with torch.inference_mode():
        for model in (plain, timm.create_model("test_vit"), "test_vit"):
            assert cp_vision.count_macs(model) == macs
        assert cp_vision.find_sites(plain) == sites
