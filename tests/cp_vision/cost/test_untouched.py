"""Counting and finding leave a model, its owner's hooks and the process as they are, and count what there is."""

import concurrent.futures
import sys

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import prune

import cp_vision


def masked(model):
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            prune.l1_unstructured(part, "weight", 0.3)


def normed(model):
    torch.nn.utils.weight_norm(model.get_classifier())


def keeping_an_activation(model):
    model.seen = [model.forward_features(torch.rand(1, 3, 64, 64, requires_grad=True))]


@pytest.mark.parametrize("change", [masked, normed, keeping_an_activation])
@pytest.mark.parametrize(("base", "site"), [("test_resnet", "layer3.0"), ("test_efficientnet", "blocks.2.0")])
def test_what_stands_in_for_weights_or_was_kept_costs_nothing(base, site, change):
    plain, model = (timm.create_model(base) for _ in range(2))
    change(model)
    assert cp_vision.count_macs(model) == cp_vision.count_macs(plain)
    assert cp_vision.find_sites(model) == cp_vision.find_sites(plain)
    cp_vision.insert_pools(model, [site])
    assert cp_vision.drop_blocks(model, [])(torch.rand(1, 3, 64, 64)).shape == (1, 1000)


@pytest.mark.parametrize("base", ["test_resnet", "test_efficientnet"])
def test_hooks_of_the_owner_run_on_images_alone(base):
    plain, model, seen = timm.create_model(base), timm.create_model(base), []

    class Recorder:
        def __init__(self):
            # What can't be copied.
            self.lines = (line for line in "ab")

        def __call__(self, module, args, output=None):
            seen.append(float(args[0].detach().mean()))

        method = __call__

    for part in model.modules():
        part.register_forward_hook(Recorder())
        part.register_forward_pre_hook(Recorder().method)
    assert cp_vision.count_macs(model) == cp_vision.count_macs(plain)
    assert cp_vision.find_sites(model) == cp_vision.find_sites(plain)
    assert not seen
    cp_vision.insert_pools(model, [cp_vision.find_sites(model)[-1].name])
    assert not seen
    model(torch.rand(1, 3, 64, 64))
    assert seen


def test_threads_count_the_same_and_the_streams_stay():
    streams = sys.stdout, sys.stderr
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        counts = set(pool.map(cp_vision.count_macs, ["test_vit"] * 8))
    assert counts == {cp_vision.count_macs("test_vit")}
    assert (sys.stdout, sys.stderr) == streams


def test_a_count_of_nothing_is_an_error():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return x + 1

    with pytest.raises(RuntimeError, match="Unused"):
        cp_vision.count_macs(Unused(), (3, 8, 8))


def test_what_cant_be_copied_is_said_on_one_line():
    model = timm.create_model("test_resnet")
    model.lines = (line for line in "ab")
    with pytest.raises(cp_vision.UserError, match=r"ResNet.*generator"):
        cp_vision.count_macs(model)
    # Where its blocks are is known without a copy.
    cp_vision.insert_pools(model, ["layer3.0"])
