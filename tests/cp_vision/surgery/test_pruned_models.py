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
    class Narrowing(nn.Module):
        """A user's module around a block, whose last layer says another width than it gives."""

        def __init__(self, block):
            super().__init__()
            self.block, self.unused = block, nn.Linear(7, 7)

        def forward(self, x, **kwargs):
            return self.block(x, **kwargs)

    model = timm.create_model("test_vit")
    model.blocks[3] = Narrowing(model.blocks[3])
    keys = list(model.state_dict())
    with pytest.raises(cp_vision.UserError, match="VisionTransformer"):
        cp_vision.insert_pools(model, ["blocks.2", "blocks.3"])
    assert list(model.state_dict()) == keys


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
