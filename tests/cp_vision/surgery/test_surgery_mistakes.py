"""Mistakes in surgery are named, and leave the model as it was."""

import pytest
import timm
import torch
from torch import nn

import cp_vision
from cp_vision import UserError, drop_blocks, insert_pools

VIT, RESNET = "test_vit", "resnet18"


# What the one line has to name: the bad value, and what would do where there is something close.
WRONG_POOLS = [
    (VIT, ["blocks.9"], {}, r"'blocks\.9'.*'blocks\."),
    (VIT, ["blocks.1", "blocks.1"], {}, r"'blocks\.1'"),
    (VIT, ["blocks.0"], {}, r"'blocks\.0'"),
    (VIT, ["blocks.5"], {}, r"'blocks\.5'"),
    (VIT, "blocks.1", {}, r"\['blocks\.1'\]"),
    (VIT, [3], {}, "3"),
    (VIT, None, {}, "None"),
    (VIT, [], {"mode": "soft"}, "'soft'.*gated, replace, pre_attn"),
    (VIT, ["blocks.1", "head"], {}, "'head'"),
    (VIT, ["blocks.1"], {"mode": "soft"}, "'soft'.*gated, replace, pre_attn"),
    (VIT, ["blocks.1"], {"support_range": -1}, "support_range -1"),
    (VIT, ["blocks.1"], {"colour": 1}, "'colour'"),
    (VIT, ["blocks.1"], {"stride": 2}, "'stride'"),
    (RESNET, ["layer1.1"], {"mode": "pre_attn"}, r"'layer1\.1'.*'pre_attn'"),
    (RESNET, ["layer1"], {}, "'layer1'"),
]

WRONG_DROPS = [
    (VIT, ["blocks.6"], r"'blocks\.6'"),
    (VIT, ["blocks.1", "blocks.1"], r"'blocks\.1'"),
    (VIT, ["blocks.5"], r"'blocks\.5'"),
    (VIT, ["blocks.0"], r"'blocks\.0'"),
    (VIT, "blocks.1", r"\['blocks\.1'\]"),
    (RESNET, ["layer1.1", "layer2.0"], r"'layer2\.0'.*layer"),
    (RESNET, ["layer1.0"], r"'layer1\.0'"),
]


def wrapped():
    return nn.Sequential(nn.Identity(), timm.create_model(VIT))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: cp_vision.find_sites(VIT), "'test_vit'"),
        (lambda: insert_pools(VIT, ["blocks.1"]), "'test_vit'"),
        (lambda: drop_blocks(None, ["blocks.1"]), "None"),
        (lambda: cp_vision.count_macs(wrapped()), "Sequential.*input_size="),
        (lambda: cp_vision.find_sites(wrapped()), "'1'.*VisionTransformer"),
        (lambda: insert_pools(nn.DataParallel(timm.create_model(VIT)), ["blocks.1"]), "'module'.*VisionTransformer"),
        (lambda: insert_pools(torch.compile(timm.create_model(VIT)), ["blocks.1"]), r"torch\.compile"),
        (lambda: cp_vision.find_sites(nn.Identity()), "Identity"),
        (lambda: cp_vision.find_sites(nn.Identity(), (3, 32, 32)), "Identity"),
    ],
)
def test_what_is_no_model_or_size_is_named(act, message):
    with pytest.raises(UserError, match=message):
        act()


def prepared(base):
    """A model with a pool at its first block and its last one dropped."""
    model = timm.create_model(base)
    names = [block.name for block in cp_vision.anatomy.known_families.list_blocks(model)]
    return drop_blocks(insert_pools(model, names[:1]), names[-1:])


def state(model):
    return (
        [(name, type(module)) for name, module in model.named_modules()],
        {key: value.clone() for key, value in model.state_dict().items()},
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    )


def check_untouched(model, act, message):
    before = state(model)
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)
    after = state(model)
    assert before[0] == after[0]
    assert before[2] == after[2]
    assert before[1].keys() == after[1].keys()
    assert all(torch.equal(value, after[1][key]) for key, value in before[1].items())


@pytest.mark.parametrize(("base", "names", "options", "message"), WRONG_POOLS)
def test_wrong_pools(base, names, options, message):
    model = prepared(base)
    check_untouched(model, lambda: insert_pools(model, names, **options), message)


@pytest.mark.parametrize(("base", "names", "message"), WRONG_DROPS)
def test_wrong_drops(base, names, message):
    model = prepared(base)
    check_untouched(model, lambda: drop_blocks(model, names), message)


def test_all_blocks_dropped():
    model = timm.create_model(VIT)
    names = [f"blocks.{i}" for i in range(6)]
    check_untouched(model, lambda: drop_blocks(model, names), "6 blocks")


def test_models_that_cant_be_pooled():
    for model, message in [
        (timm.create_model("vgg11"), "VGG"),
        (nn.Sequential(nn.Linear(3, 3)), "Sequential"),
        (timm.create_model(VIT, patch_drop_rate=0.5), "patch_drop_rate"),
    ]:
        check_untouched(model, lambda m=model: insert_pools(m, ["blocks.1"]), message)


def test_a_model_that_does_not_run_any_more_is_refused_before_it_is_changed():
    class Odd(nn.Module):
        """Reads a weight of one of its blocks itself."""

        def __init__(self):
            super().__init__()
            self.pretrained_cfg = {"input_size": (3, 8, 8)}
            self.blocks = nn.Sequential(*(Part(nn.Conv2d(3, 3, 1)) for _ in range(3)))

        def forward(self, x):
            return self.blocks(x) * self.blocks[1].conv.weight.mean()

    class Part(nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return self.conv(x)

    model = Odd()
    check_untouched(model, lambda: drop_blocks(model, ["blocks.1"]), "Odd")
    drop_blocks(insert_pools(model, ["blocks.1"]), ["blocks.2"])
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 3, 8, 8)
