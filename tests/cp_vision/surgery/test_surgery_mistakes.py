"""Mistakes in surgery are named, and leave the model as it was."""

import copy

import pytest
import timm
import torch
import torchvision
from small_models import record
from torch import nn

import cp_vision
from cp_vision import UserError, drop_blocks, find_sites, insert_pools, replace_blocks
from cp_vision.anatomy.known_families import list_blocks

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
        (lambda: find_sites(VIT), "'test_vit'"),
        (lambda: insert_pools(VIT, ["blocks.1"]), "'test_vit'"),
        (lambda: drop_blocks(None, ["blocks.1"]), "None"),
        (lambda: cp_vision.count_macs(wrapped()), "Sequential.*input_size="),
        (lambda: find_sites(wrapped()), "'1'.*VisionTransformer"),
        (lambda: insert_pools(nn.DataParallel(timm.create_model(VIT)), ["blocks.1"]), "'module'.*VisionTransformer"),
        (lambda: insert_pools(torch.compile(timm.create_model(VIT)), ["blocks.1"]), r"torch\.compile"),
        (lambda: find_sites(nn.Identity()), "Identity"),
        (lambda: find_sites(nn.Identity(), (3, 32, 32)), "Identity"),
    ],
)
def test_what_is_no_model_or_size_is_named(act, message):
    with pytest.raises(UserError, match=message):
        act()


def prepared(base):
    """A model with a pool at its first block and its last one dropped."""
    model = timm.create_model(base)
    names = [block.name for block in list_blocks(model)]
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


class Wrapper(nn.Module):
    """A user's own module around a block."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block(x)


def with_block(base, name, make):
    """A model whose block of this name was replaced by what is made of it."""
    model = timm.create_model(base)
    model.set_submodule(name, make(model.get_submodule(name)))
    return model


WRAPPED = [
    ("test_resnet", "layer3.0"),
    ("test_convnext", "stages.2.blocks.0"),
    ("regnety_002", "s3.b2"),
    (VIT, "blocks.2"),
]


class Row(nn.Sequential):
    """A user's own kind of Sequential."""


def test_an_own_kind_of_sequential_around_a_block_would_call_the_pool_twice():
    model = with_block("test_resnet", "layer3.0", Row)
    check_untouched(model, lambda: insert_pools(model, ["layer3.0"]), r"'layer3\.0'.*Row")


@pytest.mark.parametrize("wrapper", [Wrapper, nn.Sequential])
@pytest.mark.parametrize(("base", "site"), WRAPPED)
@torch.inference_mode()
def test_a_module_around_a_block_may_be_pooled(base, site, wrapper):
    model, plain = with_block(base, site, wrapper).eval(), timm.create_model(base)
    insert_pools(model, [site], mode="replace")
    insert_pools(plain, [site], mode="replace")
    assert plain.get_submodule(site).context_pool.channels == model.get_submodule(site).context_pool.channels
    seen = record(model.get_submodule(f"{site}.context_pool"))
    model(torch.randn(1, 3, 160, 160))
    assert seen["output"].shape == seen["input"].shape


def test_blocks_that_tell_too_little_are_named():
    model = with_block("resnet18", "layer3.1", lambda block: nn.ReLU())
    check_untouched(model, lambda: insert_pools(model, ["layer3.1"]), r"'layer3\.1'.*ReLU")
    model = torchvision.models.VisionTransformer(32, 16, 3, 2, 32, 64)
    model.encoder.layers[1] = Wrapper(model.encoder.layers[1])
    name = "encoder.layers.encoder_layer_1"
    check_untouched(
        model,
        lambda: insert_pools(model, ["encoder.layers.encoder_layer_0", name], mode="pre_attn"),
        f"{name}.*Wrapper",
    )


@pytest.mark.parametrize(
    ("base", "row", "first", "second"),
    [("resnet34", "layer3", 1, 3), ("convnext_atto", "stages.2.blocks", 1, 3), (VIT, "blocks", 1, 3)],
)
def test_a_block_at_two_places_is_named_with_both(base, row, first, second):
    model = timm.create_model(base)
    blocks, plain = model.get_submodule(row), find_sites(model)
    blocks[second] = blocks[first]
    assert [(site.name, site.macs) for site in find_sites(model)] == [(site.name, site.macs) for site in plain]
    one, other = f"{row}.{first}", f"{row}.{second}"
    check_untouched(model, lambda: insert_pools(model, [other]), f"'{other}'.*'{one}'")
    check_untouched(model, lambda: insert_pools(model, [one, other]), f"'{one}'.*'{other}'")
    # Once the second place is free, the first is like any other.
    drop_blocks(model, [other])
    insert_pools(model, [one])


COMPILED = [
    # What is compiled, the site, the mode, and whether the pool would stand inside.
    (VIT, "", "blocks.2", "replace", True),
    (VIT, "", "blocks.2", "pre_attn", True),
    (VIT, "blocks", "blocks.2", "replace", True),
    (VIT, "blocks.2", "blocks.2", "replace", False),
    (VIT, "blocks.2", "blocks.2", "pre_attn", True),
    (VIT, "blocks.2.attn", "blocks.2", "pre_attn", False),
    (VIT, "blocks.1", "blocks.2", "replace", False),
    ("test_resnet", "", "maxpool", "replace", True),
    ("test_resnet", "", "layer3.0.downsample", "replace", True),
    ("test_resnet", "layer3.0", "layer3.0.downsample", "replace", False),
    ("test_resnet", "layer3.0", "layer3.0", "replace", False),
]


@pytest.mark.parametrize(("base", "part", "site", "mode", "inside"), COMPILED)
@torch.no_grad()
def test_a_pool_inside_of_what_is_compiled_in_place_is_refused(base, part, site, mode, inside):
    torch._dynamo.reset()
    model = timm.create_model(base, **({"img_size": 32} if base == VIT else {})).eval()
    model.get_submodule(part).compile(backend="eager")
    x = torch.randn(1, 3, 32, 32)
    plain = model(x)
    if inside:
        place = repr(part) if part else type(model).__name__
        check_untouched(model, lambda: insert_pools(model, [site], mode=mode), f"'{site}'.*{place}.*compile")
        return
    insert_pools(model, [site], mode=mode, support_range=2.0)
    # A copy isn't compiled.
    expected = copy.deepcopy(model)(x)
    torch.testing.assert_close(model(x), expected)
    assert not torch.equal(expected, plain)


class CheckedPool(nn.MaxPool2d):
    """Looks at values, which a map on the meta device doesn't have."""

    def forward(self, x):
        assert bool(x.isfinite().all())
        return super().forward(x)


@torch.inference_mode()
def test_a_model_whose_second_site_fails_is_as_it_was():
    model = timm.create_model("test_resnet").eval()
    model.maxpool = CheckedPool(3, 2, 1)
    x = torch.randn(1, 3, 64, 64)
    plain = model(x)
    saved = copy.deepcopy((model._model_args, model.pretrained_cfg))
    sites = ["layer2.0.downsample", "layer3.0", "maxpool"]
    check_untouched(model, lambda: insert_pools(model, sites), "'maxpool'.*CheckedPool")
    assert saved == (model._model_args, model.pretrained_cfg)
    assert torch.equal(model(x), plain)
    insert_pools(model, sites[:2])
    assert model(x).shape == plain.shape


@torch.inference_mode()
def test_a_model_whose_record_cant_be_written_is_as_it_was():
    """Pools and drops are noted for timm last; a broken record is found when they stand already."""
    model = timm.create_model(VIT, img_size=32).eval()
    model._model_args = {"pool_options": {"colour": 1}}
    before = state(model)
    for act in (lambda: insert_pools(model, ["blocks.1"]), lambda: drop_blocks(model, ["blocks.1"])):
        with pytest.raises(KeyError, match="colour"):
            act()
        after = state(model)
        assert before[0] == after[0]
        assert before[1].keys() == after[1].keys()
        assert before[2] == after[2]


def test_patches_that_are_left_out_later_are_told_as_the_model_runs():
    pooled, replaced = (timm.create_model("test_vit2") for _ in range(2))
    insert_pools(pooled, ["blocks.2"])
    replace_blocks(replaced, ["blocks.2"])
    for model in (pooled, replaced):
        model.patch_drop = timm.layers.PatchDropout(0.5)
        x = torch.randn(1, 3, 64, 64)
        model.eval()(x)
        with pytest.raises(UserError, match=r"8 patches are no grid of 4 x 4.*model\.patch_drop"):
            model.train()(x)
