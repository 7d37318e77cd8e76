"""The size of the images that a model is made for."""

import re

import pytest
import timm
import torchvision
from torch import nn

import cp_vision
from cp_vision import insert_pools
from cp_vision.cost.input_size import input_size_of


def test_models_that_no_name_made_know_their_size():
    model = timm.models.VisionTransformer(img_size=64, patch_size=8, in_chans=1, embed_dim=64, depth=2, num_heads=2)
    assert [site.grid for site in cp_vision.find_sites(model)] == [(8, 8), (8, 8)]
    grey = torchvision.models.vit_b_16(image_size=64)
    grey.conv_proj = nn.Conv2d(1, 768, 16, 16)
    other = torchvision.models.resnet18()
    other.conv1 = nn.Sequential(nn.Conv2d(4, 64, 3, 2, 1))
    assert [len(cp_vision.find_sites(model)) for model in (grey, other)] == [12, 12]


def test_finding_counting_and_changing_see_one_size():
    """torchvision's classifiers other than ViTs don't know their size."""
    model = torchvision.models.convnext_tiny()
    assert input_size_of(model) == (3, 224, 224)
    site = cp_vision.find_sites(model)[0]
    assert site.grid == (56, 56)
    assert cp_vision.count_macs(model) == cp_vision.count_macs(model, (3, 224, 224))
    cp_vision.insert_pools(model, [site.name])


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x)


class Unsized(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Part(), Part())

    def forward(self, x):
        return self.blocks(x)


@pytest.mark.parametrize("use", [cp_vision.find_sites, cp_vision.count_macs, lambda m: insert_pools(m, ["blocks.0"])])
def test_a_model_that_says_no_size_is_refused_until_it_does(use):
    model = Unsized()
    with pytest.raises(cp_vision.UserError, match=r"Unsized .*input_size.*pretrained_cfg"):
        use(model)
    model.pretrained_cfg = {"input_size": (3, 32, 48)}
    assert input_size_of(model) == (3, 32, 48)
    use(model)
    assert cp_vision.find_sites(Unsized(), (3, 16, 8))[0].grid == (16, 8)


@pytest.mark.parametrize("size", [224, (3, 32), (3, 32, -32), "abc"])
def test_a_size_that_is_none_is_named(size):
    with pytest.raises(cp_vision.UserError, match=re.escape(repr(size))):
        cp_vision.count_macs("test_vit", size)
