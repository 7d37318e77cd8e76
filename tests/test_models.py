"""Every registered ``cp_*`` name, walked from the registry."""

import copy
import json
import pickle

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import get_model_input_config, is_model_pretrained, list_models, save_for_hf
from torch import nn

import cp_vision
from cp_vision import cp_models
from cp_vision.families import default_pools, list_blocks

NAMES = list_models("cp_*", module="cp_models")
SMALL = ["cp_test_vit", "cp_test_vit2", "cp_resnet18", "cp_deit_tiny_distilled_patch16_224"]


def small_args(name):
    """Arguments that make the smallest model of a name that still has all its blocks and a grid of 2 x 3."""
    model = build_meta(name)
    return {"img_size": (32, 48)} if hasattr(model, "set_input_size") else {}


def build_meta(name, **kwargs):
    with torch.device("meta"):
        return timm.create_model(name, **kwargs)


def images(name, batch=2):
    return torch.randn(batch, 3, 32, 48) if "vit" in name or "deit" in name else torch.randn(batch, 3, 64, 96)


def shaken(model):
    """Weights other than the initial ones, so that no block is a no-op."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "context_pool" not in name:
                parameter.add_(0.1 * torch.rand_like(parameter))
    return model.eval()


def test_the_promised_names_are_there():
    for base in (
        *("resnet18", "resnet34", "resnet50", "resnet101"),
        *(f"{kind}_{size}_patch16_224" for kind in ("vit", "deit") for size in ("tiny", "small", "base")),
    ):
        assert f"cp_{base}" in NAMES
    assert len(NAMES) == len(cp_models.BASES)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_inserted_pools_change_no_output(name):
    base = shaken(timm.create_model(name.removeprefix("cp_"), **small_args(name)))
    model = timm.create_model(name, **small_args(name)).eval()
    result = model.load_state_dict(base.state_dict(), strict=False)
    assert result.missing_keys
    assert all(".context_pool." in key for key in result.missing_keys)
    assert not result.unexpected_keys
    x = images(name)
    assert (model(x) - base(x)).abs().max() <= 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_default_pools_and_data_config(name):
    model, base = build_meta(name), build_meta(name.removeprefix("cp_"))
    pooled = {key.partition(".context_pool.")[0] for key in model.state_dict() if ".context_pool." in key}
    assert pooled == set(default_pools(base))
    if hasattr(base, "blocks"):
        assert len(pooled) == len(base.blocks)
    else:
        assert {site.partition(".")[0] for site in pooled} == {"layer3", "layer4"}
    assert model.pretrained_cfg["architecture"] == name
    for key in ("mean", "std", "crop_pct", "interpolation", "input_size", "num_classes", "hf_hub_id"):
        assert model.pretrained_cfg.get(key) == base.pretrained_cfg.get(key), key


def test_pretrained_tags_carry_over():
    assert is_model_pretrained("cp_resnet50.a1_in1k")
    model = build_meta("cp_resnet50.a1_in1k")
    assert model.pretrained_cfg["hf_hub_id"] == "timm/resnet50.a1_in1k"
    assert model.pretrained_cfg["tag"] == "a1_in1k"
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        build_meta("cp_resnet50.no_such_tag")


@pytest.mark.parametrize(
    ("model", "macs"),
    [("resnet50", 4.09e9), ("vit_base_patch16_224", 17.58e9), ("deit_small_patch16_224", 4.61e9)],
)
def test_macs_of_known_models(model, macs):
    assert cp_vision.count_macs(model) == pytest.approx(macs, rel=0.01)
    assert cp_vision.count_macs(timm.create_model(model)) == cp_vision.count_macs(model)


@pytest.mark.parametrize("name", [*SMALL, "cp_resnet50", "cp_vit_small_patch16_224"])
def test_cost_is_a_sum_over_blocks_and_pools(name):
    base = build_meta(name.removeprefix("cp_"))
    sites = cp_vision.find_sites(base)
    model = build_meta(name, pools=[site.name for site in sites])
    added = sum(cp_vision.pool_macs(model.get_submodule(s.name).context_pool, s.grid) for s in sites)
    assert cp_vision.count_macs(model) == cp_vision.count_macs(base) + added
    assert cp_vision.find_sites(model) == sites
    drops = [site.name for site in sites if site.droppable][1:3]
    fewer = build_meta(name, pools=(), drops=drops)
    assert cp_vision.count_macs(fewer) == cp_vision.count_macs(base) - sum(s.macs for s in sites if s.name in drops)


@pytest.mark.parametrize("name", SMALL)
def test_sites_are_where_the_model_says(name):
    x = images(name, 1)
    base = timm.create_model(name.removeprefix("cp_"), **small_args(name)).eval()
    for site in cp_vision.find_sites(base, tuple(x.shape[1:])):
        seen = []
        handle = base.get_submodule(site.name).register_forward_hook(lambda m, a, y, seen=seen: seen.append(y.shape))
        with torch.no_grad():
            base(x)
        handle.remove()
        rows, columns = site.grid
        if site.kind == "map":
            assert seen == [(1, site.channels, rows, columns)]
        else:
            assert seen == [(1, rows * columns + base.num_prefix_tokens, site.channels)]


@pytest.mark.parametrize("mode", ["gated", "replace", "pre_attn"])
@pytest.mark.parametrize("name", SMALL)
def test_pools_act_where_their_mode_says(name, mode):
    if mode == "pre_attn" and "resnet" in name:
        pytest.skip("a ResNet has no attention")
    base = shaken(timm.create_model(name.removeprefix("cp_"), **small_args(name)))
    site = list_blocks(base)[3].name
    model = timm.create_model(name, **small_args(name), pools=[site], pool_options={"mode": mode, "support_range": 1.0})
    model.load_state_dict(base.state_dict(), strict=False)
    model.eval()
    pool = model.get_submodule(site).context_pool
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.normal_()
    x = images(name)
    inputs, outputs = record(model, model.get_submodule(site)), record(model, pool)
    y = model(x)
    assert (y - base(x)).abs().max() > 1e-6
    pooled_in, pooled_out = outputs["input"], outputs["output"]
    if "resnet" in name:
        assert torch.equal(inputs["output"], pooled_out)
        return
    prefix = model.num_prefix_tokens
    rows, columns = pooled_in.shape[-2:]
    assert (rows, columns) == (2, 3)
    if mode == "pre_attn":
        block = model.get_submodule(site)
        tokens = block.norm1(inputs["input"])
        assert torch.equal(tokens[:, prefix:].mT.unflatten(2, (rows, columns)), pooled_in)
    else:
        tokens = inputs["output"]
        assert torch.equal(tokens[:, prefix:], pooled_out.flatten(2).mT)
        # Class and register tokens come out of the block untouched by the pool.
        block = model.get_submodule(site)
        bare = base.get_submodule(site)(inputs["input"])
        assert torch.equal(tokens[:, :prefix], bare[:, :prefix])
        assert not torch.equal(tokens[:, prefix:], bare[:, prefix:])
        assert block.context_pool is pool


def record(model, module):
    seen = {}
    module.register_forward_hook(lambda m, args, output: seen.update(input=args[0], output=output))
    return seen


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_dropping_is_skipping(name):
    base = shaken(timm.create_model(name.removeprefix("cp_"), **small_args(name), drop_path_rate=0.1))
    drops = [block.name for block in list_blocks(base) if block.droppable][-3:-1]
    model = timm.create_model(name, **small_args(name), drop_path_rate=0.1, pools=(), drops=drops).eval()
    model.load_state_dict({k: v for k, v in base.state_dict().items() if not k.startswith(tuple(drops))})
    names = [block.name for block in list_blocks(base) if block.name not in drops]
    assert [block.name for block in list_blocks(model)] == names
    assert model.feature_info == base.feature_info
    for module in (m for n, m in base.named_modules() if n in drops):
        module.forward = lambda x, *args, **kwargs: x
    x = images(name)
    assert torch.equal(model(x), base(x))
    rates = {n: m.drop_prob for n, m in base.named_modules() if hasattr(m, "drop_prob")}
    kept = {n: m.drop_prob for n, m in model.named_modules() if hasattr(m, "drop_prob")}
    assert kept == {n: rate for n, rate in rates.items() if not n.startswith(tuple(drops))}


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_model_loads_bit_equal(name, tmp_path):
    droppable = [block.name for block in list_blocks(build_meta(name)) if block.droppable]
    args = {"drops": [droppable[0]], "pools": [droppable[1]], "pool_options": {"mode": "replace", "hidden": 3}}
    model = shaken(timm.create_model(name, num_classes=7, **args, **small_args(name)))
    save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert list(loaded.state_dict()) == list(model.state_dict())
    x = images(name)
    assert torch.equal(loaded(x), model(x))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == name
    assert config["model_args"]["pools"] == args["pools"]
    # A new head for another number of classes; everything else is loaded.
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3).eval()
    torch.testing.assert_close(other.forward_features(x), model.forward_features(x))


def test_any_supported_base_by_the_generic_name(tmp_path):
    model = timm.create_model("context_pooled", base="resnet14t", num_classes=5, drops=(), pools=("layer4.0",)).eval()
    save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(x), model(x))


def test_plain_and_pooled_checkpoint_files(tmp_path):
    base = shaken(timm.create_model("test_vit", num_classes=5))
    torch.save(base.state_dict(), tmp_path / "plain.pth")
    overlay = {"file": str(tmp_path / "plain.pth"), "num_classes": 5}
    args = {"num_classes": 5, "pools": ("blocks.1",), "pretrained": True}
    model = timm.create_model("cp_test_vit", pretrained_cfg_overlay=overlay, **args).eval()
    x = torch.randn(1, 3, 160, 160)
    assert torch.equal(model(x), base(x))
    # Another image size: timm's own filter resizes the position embedding.
    timm.create_model("cp_test_vit", pretrained_cfg_overlay=overlay, img_size=64, **args)
    state = model.state_dict()
    for broken, message in [
        ({k: v for k, v in state.items() if k != "blocks.2.norm1.weight"}, "missing blocks.2.norm1.weight"),
        ({k: v for k, v in state.items() if k != "blocks.1.context_pool.gate"}, "missing blocks.1.context_pool.gate"),
        (state | {"blocks.4.context_pool.gate": torch.zeros(64)}, "unexpected blocks.4.context_pool.gate"),
    ]:
        overlay = {"state_dict": broken, "num_classes": 5}
        with pytest.raises(cp_vision.UserError, match=message):
            timm.create_model("cp_test_vit", pretrained_cfg_overlay=overlay, **args)
    state["blocks.1.context_pool.gate"] = torch.ones(64)
    torch.save(state, tmp_path / "pooled.pth")
    overlay = {"file": str(tmp_path / "pooled.pth"), "num_classes": 5}
    loaded = timm.create_model("cp_test_vit", pretrained_cfg_overlay=overlay, **args).eval()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in state.items())
    assert (loaded(x) - base(x)).abs().max() > 0


@pytest.mark.parametrize("name", SMALL)
def test_copies_pickles_and_compiled_models_are_the_same(name):
    model = shaken(timm.create_model(name, **small_args(name)))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".context_pool." in key:
                parameter.normal_()
    x = images(name)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
        assert torch.equal(other(x), expected)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        assert torch.equal(model(x), expected)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize("name", SMALL)
def test_features_and_head(name):
    model = shaken(timm.create_model(name, **small_args(name)))
    x = images(name)
    final, intermediates = model.forward_intermediates(x)
    assert len(intermediates) == (len(model.blocks) if hasattr(model, "blocks") else 5)
    features = timm.create_model(name, features_only=True, **small_args(name)).eval()
    base = timm.create_model(name.removeprefix("cp_"), features_only=True, **small_args(name)).eval()
    assert [f.shape for f in features(x)] == [f.shape for f in base(x)]
    assert features.feature_info.channels() == base.feature_info.channels()
    assert set(base.state_dict()) <= set(features.state_dict())
    assert resolve_model_data_config(features) == resolve_model_data_config(base)
    assert model.forward_head(final, pre_logits=True).shape == (2, model.num_features)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)


def test_images_of_any_size():
    model = shaken(timm.create_model("cp_test_vit2", pool_options={"mode": "replace"}))
    whole = model.forward_features(torch.randn(1, 3, 64, 96))
    assert whole.shape == (1, 1 + 4 * 6, 64)
    assert model.forward_features(torch.randn(1, 3, 96, 48)).shape == (1, 1 + 6 * 3, 64)


def test_gradient_checkpointing_gives_the_same_gradients():
    for name in ("cp_test_vit", "cp_resnet18"):
        gradients = []
        for checkpointing in (False, True):
            torch.manual_seed(0)
            model = timm.create_model(name, **small_args(name), pool_options={"mode": "replace"}).train()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            model.set_grad_checkpointing(checkpointing)
            model(images(name)).square().sum().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        torch.testing.assert_close(*gradients)


def test_creating_a_pooled_model_leaves_timm_alone():
    torch.manual_seed(0)
    before = timm.create_model("resnet18").state_dict()
    timm.create_model("cp_resnet18")
    torch.manual_seed(0)
    model = timm.create_model("resnet18")
    assert list(model.state_dict()) == list(before)
    assert not any(module._forward_hooks for module in model.modules())
    assert get_model_input_config(model)["input_size"] == (3, 224, 224)
