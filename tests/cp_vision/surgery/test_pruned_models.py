"""Models whose channels were pruned: what their blocks give is read from the blocks."""

import pytest
import timm
import torch
from small_models import images
from torch import nn

import cp_vision

HALF = [
    ("test_convnext", {"dims": (12, 12, 24, 32), "depths": (1, 1, 2, 1)}, "stages.2.blocks.1"),
    ("test_vit", {"embed_dim": 32, "num_heads": 2}, "blocks.3"),
    ("test_resnet", {"channels": (16, 24, 24, 48)}, "layer3.0"),
]


@pytest.mark.parametrize(("base", "narrower", "site"), HALF)
@torch.inference_mode()
def test_widths_are_those_of_the_blocks(base, narrower, site):
    plain, model = timm.create_model(base), timm.create_model(base, **narrower)
    # What timm says of the model as it was built.
    model.feature_info = plain.feature_info
    sites = {one.name: one.channels for one in cp_vision.find_sites(model)}
    cp_vision.insert_pools(model, [site])
    assert model.get_submodule(site).context_pool.channels == sites[site]
    assert model.eval()(images(size=model.pretrained_cfg["input_size"][1:])).shape == (1, 1000)


def test_a_model_that_does_not_run_with_its_pools_stays_as_it_was():
    class Shorter(nn.Module):
        """A user's module around a block that leaves the class token out, so that no grid of tokens is left."""

        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x, **kwargs):
            return self.block(x, **kwargs)[:, 1:]

    model = timm.create_model("test_vit")
    model.blocks[3] = Shorter(model.blocks[3])
    keys = list(model.state_dict())
    with pytest.raises(cp_vision.UserError, match="VisionTransformer"):
        cp_vision.insert_pools(model, ["blocks.2", "blocks.3"])
    assert list(model.state_dict()) == keys


def test_blocks_of_several_types_get_pools_of_their_type():
    model = timm.create_model("test_vit")
    model.blocks[2].bfloat16()
    cp_vision.insert_pools(model, ["blocks.1", "blocks.2"])
    types = [next(model.blocks[i].context_pool.parameters()).dtype for i in (1, 2)]
    assert types == [torch.float32, torch.bfloat16]


def test_an_adapter_around_a_block_has_the_models_width():
    class Adapter(nn.Module):
        def __init__(self, block, channels):
            super().__init__()
            self.block, self.up, self.down = block, nn.Linear(8, channels), nn.Linear(channels, 8)

        def forward(self, x, **kwargs):
            x = self.block(x, **kwargs)
            return x + self.up(self.down(x))

    model = timm.create_model("test_vit")
    model.blocks[2] = Adapter(model.blocks[2], model.embed_dim)
    cp_vision.insert_pools(model, ["blocks.2"])
    assert model.blocks[2].context_pool.channels == model.embed_dim


def test_a_block_that_runs_at_two_places_is_no_place_for_one_pool():
    class Twice(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x):
            return self.block(x)

    one = timm.create_model("test_vit")
    one.blocks[4] = Twice(one.blocks[2])
    with pytest.raises(cp_vision.UserError, match=r"'blocks\.2'.*2 times"):
        cp_vision.insert_pools(one, ["blocks.2"])
