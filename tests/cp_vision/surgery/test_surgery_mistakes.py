"""Mistakes in surgery are named, and leave the model as it was."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.utils import prune

import cp_vision
from cp_vision import Architecture, UserError, drop_blocks, insert_pools

VIT, RESNET = "test_vit", "resnet18"

WRONG_POOLS = [
    (VIT, ["blocks.9"], {}, r"pool 'blocks.9' is no site of this model; did you mean 'blocks"),
    (VIT, ["blocks.1", "blocks.1"], {}, "named twice"),
    (VIT, ["blocks.0"], {}, "a pool already stands there"),
    (VIT, ["blocks.5"], {}, "this block is dropped"),
    (VIT, "blocks.1", {}, r"must be a list of block names, not one string; write \['blocks.1'\]"),
    (VIT, [3], {}, "3 is not a block name"),
    (VIT, None, {}, "pools None must be a list of block names"),
    (VIT, [], {"mode": "soft"}, "'soft' is not one of gated, replace, pre_attn"),
    (VIT, ["blocks.1", "head"], {}, "'head' is no site"),
    (VIT, ["blocks.1"], {"mode": "soft"}, "'soft' is not one of gated, replace, pre_attn"),
    (VIT, ["blocks.1"], {"support_range": -1}, "support_range -1 must be above 0"),
    (VIT, ["blocks.1"], {"colour": 1}, "unknown pool option 'colour'"),
    (VIT, ["blocks.1"], {"stride": 2}, "unknown pool option 'stride'"),
    (RESNET, ["layer1.1"], {"mode": "pre_attn"}, "'pre_attn' needs attention"),
    (RESNET, ["layer1"], {}, "'layer1' is no site"),
]

WRONG_DROPS = [
    (VIT, ["blocks.6"], "drop 'blocks.6' is no block"),
    (VIT, ["blocks.1", "blocks.1"], "named twice"),
    (VIT, ["blocks.5"], "this block is dropped"),
    (VIT, ["blocks.0"], "a pool stands there"),
    (VIT, "blocks.1", "must be a list"),
    (
        RESNET,
        ["layer1.1", "layer2.0"],
        r"'layer2.0': a block that changes the map, or .* can't be dropped \(droppable: layer",
    ),
    (RESNET, ["layer1.0"], "can't be dropped"),
]


def wrapped():
    return nn.Sequential(nn.Identity(), timm.create_model(VIT))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: cp_vision.find_sites(VIT), "'test_vit' is no model; make one first"),
        (lambda: insert_pools(VIT, ["blocks.1"]), "'test_vit' is no model"),
        (lambda: drop_blocks(None, ["blocks.1"]), "None is no model"),
        (lambda: cp_vision.count_macs(VIT, 224), r"input size 224 must be \(channels, height, width\)"),
        (lambda: cp_vision.count_macs(VIT, (3, 32, -32)), r"input size \(3, 32, -32\) must be"),
        (lambda: cp_vision.find_sites(timm.create_model(VIT), (3, 32)), r"input size \(3, 32\) must be"),
        (lambda: cp_vision.count_macs(wrapped()), r"Sequential doesn't say the size of its images; give input_size="),
        (lambda: cp_vision.find_sites(wrapped()), "holds as '1' is: give that VisionTransformer itself"),
        (lambda: insert_pools(nn.DataParallel(timm.create_model(VIT)), ["blocks.1"]), "holds as 'module' is: give"),
        (lambda: insert_pools(torch.compile(timm.create_model(VIT)), ["blocks.1"]), "change the model first, then"),
        (lambda: cp_vision.find_sites(nn.Identity()), "Identity models are not supported"),
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
    check_untouched(model, lambda: drop_blocks(model, names), "drops name all 6 blocks; keep at least one")


def test_models_that_cant_be_pooled():
    for model, message in [
        (timm.create_model("vgg11"), "VGG models are not supported"),
        (nn.Sequential(nn.Linear(3, 3)), "Sequential models are not supported"),
        (timm.create_model(VIT, patch_drop_rate=0.5), "use patch_drop_rate=0 with pools"),
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
    check_untouched(model, lambda: drop_blocks(model, ["blocks.1"]), "Odd models can't be changed like this: .* fails")
    drop_blocks(insert_pools(model, ["blocks.1"]), ["blocks.2"])
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 3, 8, 8)


def test_pools_take_the_place_and_state_of_their_block():
    model = timm.create_model(VIT).double().eval()
    insert_pools(model, ["blocks.2"])
    pool = model.blocks[2].context_pool
    assert pool.gate.dtype == torch.float64
    assert not pool.training


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Architecture("resnet_50").build(), r"unknown base model 'resnet_50'; did you mean 'resnet50'"),
        (lambda: Architecture("test_vit", pools="blocks.1"), "must be a list"),
        (lambda: Architecture("test_vit", pools=["blocks.1"], drops=["blocks.1"]).build(), "this block is dropped"),
        (lambda: Architecture.from_json("{"), "must be JSON"),
        (lambda: Architecture.from_json('{"base": "test_vit", "depth": 3}'), "with the keys base, pools"),
        (lambda: Architecture.from_json("[]"), "is a JSON object"),
        (lambda: Architecture.from_json('{"base": "test_vit", "pools": null}'), "pools None must be a list"),
        (lambda: Architecture.from_json('{"base": "test_vit", "pool_options": 3}'), "pool_options 3 must be a mapping"),
        (lambda: Architecture("test_vit", model_args={"a": {1}}), "must hold JSON values alone"),
        (lambda: Architecture("cp_test_vit").build(), "has pools already; name the plain base, 'test_vit'"),
        (lambda: Architecture("test_vit", ["blocks.1"], pool_options={"learned_weight": 5}).build(), "True or"),
        (lambda: timm.create_model("cp_test_vit", pools={"blocks.1"}), "must be 'default' or a list"),
        (lambda: timm.create_model("cp_test_vit", drops=iter(["blocks.1"])), "must be a list"),
        (lambda: timm.create_model("context_pooled"), "needs base="),
        (lambda: timm.create_model("context_pooled", base="nothing_like_it"), "unknown base model"),
        (lambda: timm.create_model("cp_test_vit", pools="blocks.1"), "must be 'default' or a list"),
    ],
)
def test_wrong_architectures(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_architecture_goes_to_json_and_back():
    one = Architecture(
        "test_vit", ["blocks.1"], ["blocks.2"], {"mode": "replace"}, {"img_size": (32, 32), "num_classes": 5}
    )
    two = Architecture.from_json(one.to_json())
    assert two == one
    assert hash(two) == hash(one)
    assert two.macs() == cp_vision.count_macs(one.build())
    assert one.macs() == Architecture("test_vit", model_args=one.model_args).macs() + (
        cp_vision.pool_macs(one.build().blocks[1].context_pool, (2, 2))
        - next(s.macs for s in cp_vision.find_sites(Architecture("test_vit", model_args=one.model_args).build()))
    )
    assert Architecture("resnet50").model_name == "cp_resnet50"
    assert Architecture("test_efficientnet").model_name == "context_pooled"


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


def test_weights_are_initialised_after_the_meta_device():
    with torch.device("meta"):
        model = timm.create_model("cp_test_vit")
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    model.init_weights()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("wrap", [nn.DataParallel, timm.utils.ModelEmaV3, torch.compile])
def test_wrappers_cost_what_they_hold(wrap):
    model = timm.create_model(VIT)
    assert cp_vision.count_macs(wrap(model)) == cp_vision.count_macs(model)


def test_models_that_no_name_made_know_their_size():
    model = timm.models.VisionTransformer(img_size=64, patch_size=8, in_chans=1, embed_dim=64, depth=2, num_heads=2)
    assert [site.grid for site in cp_vision.find_sites(model)] == [(8, 8), (8, 8)]
    grey = torchvision.models.vit_b_16(image_size=64)
    grey.conv_proj = nn.Conv2d(1, 768, 16, 16)
    other = torchvision.models.resnet18()
    other.conv1 = nn.Sequential(nn.Conv2d(4, 64, 3, 2, 1))
    assert [len(cp_vision.find_sites(model)) for model in (grey, other)] == [12, 12]
