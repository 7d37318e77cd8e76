"""Families that users register: their finder is asked in place of the search for blocks."""

import pytest
import timm
import torch
from small_models import close, images, stir
from timm.models import VisionTransformer
from torch import nn

import cp_vision
from cp_vision.anatomy import known_families
from cp_vision.anatomy.block import Block


class Own(VisionTransformer):
    """A user's, derived from a class of a known family."""


class OwnDeeper(Own):
    """Counts as its parent."""


def every_other_block(model):
    for i, block in list(enumerate(model.blocks))[::2]:
        yield Block(
            name=f"blocks.{i}",
            module=block,
            layout="tokens",
            channels=model.embed_dim,
            reduction=16,
            droppable=True,
            prefix=model.num_prefix_tokens,
        )


@pytest.fixture
def registered():
    cp_vision.register_family(Own, every_other_block)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("model_class", [Own, OwnDeeper])
@torch.inference_mode()
def test_the_finder_of_the_most_derived_class_is_asked(model_class):
    model = model_class(img_size=(64, 96), patch_size=16, embed_dim=48, depth=4, num_heads=2, num_classes=5).eval()
    assert [site.name for site in cp_vision.find_sites(model)] == ["blocks.0", "blocks.2"]
    x = images()
    before = model(x)
    cp_vision.insert_pools(model, ["blocks.2"])
    close(model(x), before)
    assert not torch.equal(stir(model)(x), before)
    with pytest.raises(cp_vision.UserError, match=r"blocks\.1"):
        cp_vision.insert_pools(model, ["blocks.1"])
    assert len(cp_vision.find_sites(timm.create_model("test_vit"))) == 6


@pytest.mark.parametrize(
    ("family", "finder", "value"),
    [("beit", every_other_block, "'beit'"), (int, every_other_block, "int"), (Own, 3, "3")],
)
def test_what_is_no_family_is_named(family, finder, value):
    with pytest.raises(cp_vision.UserError, match=value):
        cp_vision.register_family(family, finder)
    assert not issubclass(nn.Identity, tuple(known_families._FAMILIES))
