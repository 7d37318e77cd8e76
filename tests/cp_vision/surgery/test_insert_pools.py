"""Pools at blocks: where they act in each mode, and what they take from their block."""

import copy
import pickle
import subprocess
import sys

import pytest
import timm
import torch
from small_models import QUICK, base_of, close, images, record, small, stir

import cp_vision
from cp_vision import UserError, insert_pools
from cp_vision.anatomy.known_families import list_blocks


@pytest.mark.parametrize("mode", ["gated", "replace", "pre_attn"])
@pytest.mark.parametrize("name", QUICK)
@torch.no_grad()
def test_pools_act_where_their_mode_says(name, mode):
    base = small(base_of(name))
    site = list_blocks(base)[2]
    options = {"mode": mode, "support_range": 1.0}
    if mode == "pre_attn" and site.attention is None:
        with pytest.raises(cp_vision.UserError, match="pre_attn"):
            small(name, pools=[site.name], pool_options=options)
        return
    model = stir(small(name, pools=[site.name], pool_options=options))
    model.load_state_dict(base.state_dict(), strict=False)
    block = model.get_submodule(site.name)
    whole, pool = record(block), record(block.context_pool)
    x = images()
    assert (model(x) - base(x)).abs().max() > 1e-6
    bare = base.get_submodule(site.name)(whole["input"])
    if mode == "pre_attn":
        attended = base.get_submodule(site.name).norm1(whole["input"])
        assert torch.equal(as_map(attended, site, pool["input"]), pool["input"])
        assert not torch.equal(whole["output"], bare)
        return
    assert torch.equal(as_map(bare, site, pool["input"]), pool["input"])
    assert torch.equal(as_map(whole["output"], site, pool["input"]), pool["output"])
    # Class and register tokens come out of the block untouched by the pool.
    assert torch.equal(whole["output"][:, : site.prefix], bare[:, : site.prefix])


def as_map(x, site, like):
    if site.layout == "NHWC":
        return x.permute(0, 3, 1, 2)
    return x[:, site.prefix :].mT.unflatten(2, like.shape[2:]) if site.layout == "tokens" else x


def test_pools_take_dtype_device_and_mode_of_their_block():
    model = timm.create_model("test_vit").eval()
    model.blocks[1].double()
    model.blocks[2].to("meta").train()
    insert_pools(model, ["blocks.0", "blocks.1", "blocks.2"])
    pools = [block.context_pool for block in model.blocks[:3]]
    assert [pool.gate.dtype for pool in pools] == [torch.float32, torch.float64, torch.float32]
    assert [pool.gate.device.type for pool in pools] == ["cpu", "cpu", "meta"]
    assert [pool.training for pool in pools] == [False, False, True]


@torch.inference_mode()
def test_pools_of_a_model_in_two_dtypes_run():
    """A stem's pooling has no parameters: its pool follows the convolution before it."""
    model = timm.create_model("test_resnet").bfloat16().eval()
    insert_pools(model, ["maxpool", "layer2.0.downsample", "layer3.0"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(images().bfloat16()).dtype == torch.bfloat16


@torch.inference_mode()
def test_sites_may_have_options_of_their_own():
    sites = {"blocks.1": {"mode": "replace"}, "blocks.3": {"mode": "pre_attn", "hidden": 3}, "blocks.4": {}}
    torch.manual_seed(0)
    model = stir(insert_pools(small("test_vit", img_size=64), sites, hidden=4))
    one = small("test_vit", img_size=64)
    for site, options in sites.items():
        insert_pools(one, [site], **{"hidden": 4, **options})
    assert list(one.state_dict()) == list(model.state_dict())
    one.load_state_dict(model.state_dict())
    x = images(size=(64, 64))
    assert torch.equal(model(x), one(x))
    assert [model.blocks[i].context_pool.mapping[0].out_channels for i in (1, 3, 4)] == [4, 3, 4]


@pytest.mark.parametrize(
    ("sites", "value"),
    [({"blocks.1": {"mode": "soft"}}, "soft"), ({"blocks.1": {"colour": 1}}, "colour"), ({"blocks.1": 3}, "3")],
)
def test_wrong_options_of_a_site_are_named(sites, value):
    model = timm.create_model("test_vit")
    with pytest.raises(UserError, match=value):
        insert_pools(model, {"blocks.0": {}, **sites})
    assert not any(isinstance(module, cp_vision.ContextPool2d) for module in model.modules())


HOOKED = """
import sys, torch
import cp_vision
for file in sys.argv[1:]:
    model = torch.load(file, weights_only=False)
    numbers = [n for module in model.modules() for n in (*module._forward_hooks, *module._forward_pre_hooks)]
    new = model.register_forward_hook(lambda *args: None).id
    print(len(numbers), new > max(numbers))
"""


@pytest.mark.slow
def test_a_pickled_models_hooks_keep_their_numbers(tmp_path):
    """A new process counts anew, and a hook that got the number of a pool's would stand in its place."""
    for i, (name, args) in enumerate(
        [
            ("cp_test_vit", {"pools": ["blocks.1"], "dynamic_img_size": True}),
            ("cp_test_vit", {"pools": ["blocks.1"], "pool_options": {"mode": "pre_attn"}}),
            ("cp_test_resnet", {"pools": ["layer2.0.downsample", "layer3.0"]}),
        ]
    ):
        torch.save(timm.create_model(name, **args), tmp_path / f"{i}.pt")
    command = [sys.executable, "-c", HOOKED, *sorted(map(str, tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2 True"] * 3


@pytest.mark.slow
def test_an_export_with_open_sizes_leaves_the_model_as_it_was():
    model = timm.create_model("cp_test_vit", dynamic_img_size=True).eval()
    sides = {i: 16 * torch.export.Dim(name, min=2, max=20) for i, name in ((2, "rows"), (3, "columns"))}
    torch.export.export(model, (torch.randn(2, 3, 160, 192),), dynamic_shapes=(sides,))
    other = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    x = images()
    close(other(x), copy.deepcopy(model)(x))
    assert cp_vision.find_sites(model)
