"""Strided pools in place of what makes a ConvNet's map smaller."""

import re

import pytest
import timm
import torch
from small_models import QUICK, base_of, images, record, small, stir
from torch.nn.utils import prune

import cp_vision
from cp_vision.anatomy.downsamplings import list_poolings


@pytest.mark.parametrize("name", [name for name in QUICK if list_poolings(small(name))])
@torch.inference_mode()
def test_strided_pools_take_the_place_of_what_makes_maps_smaller(name):
    base = small(base_of(name))
    poolings = list_poolings(base)
    model = stir(small(name, pools=[pooling.name for pooling in poolings]), 0.3)
    result = model.load_state_dict(base.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(".context_pool." in key for key in result.missing_keys)
    for size in ((64, 96), (70, 90)):
        x = images(size=size)
        maps = base.forward_intermediates(x, intermediates_only=True)
        for own, other in zip(model.forward_intermediates(x, intermediates_only=True), maps, strict=True):
            assert own.shape == other.shape
            assert own.isfinite().all()
    assert [pooling.name for pooling in list_poolings(model)] == [pooling.name for pooling in poolings]
    for pooling in poolings:
        pool = record(model.get_submodule(f"{pooling.name}.context_pool"))
        model(x)
        assert pool["output"].shape[2:] == tuple(-(-size // pooling.stride) for size in pool["input"].shape[2:])
    with pytest.raises(cp_vision.UserError, match=re.escape(repr(poolings[0].name))):
        cp_vision.insert_pools(model, [poolings[0].name])
    sites = {site.name: site for site in cp_vision.find_sites(base, (3, 64, 96))}
    own = {site.name: site for site in cp_vision.find_sites(model, (3, 64, 96))}
    assert sites.keys() == own.keys()
    assert all(own[pooling.name].grid == sites[pooling.name].grid for pooling in poolings)


@torch.inference_mode()
def test_a_strided_pool_of_tiny_support_takes_every_other_pixel():
    options = {"sigma_min": 1e-3, "support_range": 1e-6, "learned_weight": False, "backend": "exact"}
    model = small("cp_resnet50d", pools=["maxpool", "layer2.0.downsample"], pool_options=options)
    stem, whole = record(model.maxpool), record(model.layer2[0].conv1)
    model(images())
    # Between four pixels lies the place of a strided output, or on one of them.
    assert stem["output"].shape == (1, 64, 16, 24)
    low, high = stem["input"].amin(), stem["input"].amax()
    assert low <= stem["output"].amin() <= stem["output"].amax() <= high
    assert whole["input"].shape[2:] == (8, 12)


@torch.no_grad()
def test_a_pooled_down_sampling_that_others_have_changed_is_called():
    model = timm.create_model("cp_convnext_atto", pools=["stages.1.downsample"]).eval()
    x = torch.randn(1, 3, 64, 80)
    plain = model(x)
    convolution = model.get_submodule("stages.1.downsample.1")
    handle = convolution.register_forward_hook(lambda module, args, output: None)
    torch.testing.assert_close(model(x), plain)
    handle.remove()
    prune.l1_unstructured(convolution, "weight", 0.5)
    pruned = model(x)
    assert not torch.equal(pruned, plain)
    prune.remove(convolution, "weight")
    torch.testing.assert_close(model(x), pruned)
