"""Building, costing, saving and loading ``cp_`` models; what they share with timm is in test_citizens."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from small_models import NAMES, QUICK, base_of, close, images, small, small_args, stir
from timm.models import get_model_input_config, is_model_pretrained, save_for_hf
from torchvision.models.feature_extraction import create_feature_extractor

import cp_vision
from cp_vision.anatomy.default_pools import default_pools
from cp_vision.anatomy.downsamplings import list_poolings
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.cost.macs import pool_macs
from cp_vision.surgery.insert_pools import POOL_MODES


def build_meta(name, **kwargs):
    with torch.device("meta"):
        return timm.create_model(name, **kwargs)


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


def test_the_promised_names_are_there():
    for base in (
        *("resnet18", "resnet50d", "resnext50_32x4d", "wide_resnet50_2", "regnety_016", "convnext_tiny"),
        *("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "deit3_small_patch16_224"),
        *(f"{kind}_{size}_patch16_224" for kind in ("vit", "deit") for size in ("tiny", "small", "base")),
    ):
        assert f"cp_{base}" in NAMES


@pytest.mark.parametrize("name", QUICK)
def test_cost_is_a_sum_over_blocks_and_pools(name):
    size, args = (3, 64, 96), small_args(name)
    base = build_meta(base_of(name), **args)
    sites = cp_vision.find_sites(base, size)
    blocks = [site for site in sites if site.kind == "block"]
    model = build_meta(name, **args, pools=[site.name for site in blocks])
    added = sum(cp_vision.pool_macs(model.get_submodule(s.name).context_pool, s.grid) for s in blocks)
    assert cp_vision.count_macs(model, size) == cp_vision.count_macs(base, size) + added
    assert cp_vision.find_sites(model, size) == sites
    drops = [site.name for site in sites if site.droppable][1:3]
    fewer = build_meta(name, **args, pools=(), drops=drops)
    saved = sum(site.macs for site in sites if site.name in drops)
    assert cp_vision.count_macs(fewer, size) == cp_vision.count_macs(base, size) - saved


@pytest.mark.parametrize("name", QUICK)
@torch.no_grad()
def test_sites_are_where_the_model_says(name):
    x = images()
    base = small(base_of(name))
    for site in cp_vision.find_sites(base, tuple(x.shape[1:])):
        seen = []
        place = site.name if site.kind != "downsample" or "stages" in site.name else site.name.rpartition(".")[0]
        module = base.get_submodule(place)
        handle = module.register_forward_hook(lambda m, a, y, seen=seen: seen.extend((a[0].shape, y.shape)))
        base(x)
        handle.remove()
        before, after = seen
        rows, columns = site.grid
        if site.kind != "block":
            assert before == (1, site.channels, rows, columns)
            assert after[2:] == (rows // 2, columns // 2)
        elif site.layout == "NCHW":
            assert after == (1, site.channels, rows, columns)
        elif site.layout == "NHWC":
            assert after == (1, rows, columns, site.channels)
        else:
            assert after == (1, rows * columns + base.num_prefix_tokens, site.channels)
        if site.droppable:
            assert before == after


@pytest.mark.parametrize("mode", ["gated", "replace", "pre_attn"])
@pytest.mark.parametrize("name", QUICK)
@torch.no_grad()
def test_pools_act_where_their_mode_says(name, mode):
    base = small(base_of(name))
    site = list_blocks(base)[2]
    options = {"mode": mode, "support_range": 1.0}
    if mode == "pre_attn" and site.attention is None:
        with pytest.raises(cp_vision.UserError, match=r"'pre_attn' needs attention|no separate attention"):
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


def record(module):
    seen = {}
    module.register_forward_hook(lambda m, args, output: seen.update(input=args[0], output=output))
    return seen


def as_map(x, site, like):
    if site.layout == "NHWC":
        return x.permute(0, 3, 1, 2)
    return x[:, site.prefix :].mT.unflatten(2, like.shape[2:]) if site.layout == "tokens" else x


@pytest.mark.parametrize("name", QUICK)
@torch.inference_mode()
def test_dropping_is_skipping(name):
    base = small(base_of(name), drop_path_rate=0.1)
    drops = [block.name for block in list_blocks(base) if block.droppable][-3:-1]
    model = small(name, drop_path_rate=0.1, pools=(), drops=drops)
    gone = tuple(f"{drop}." for drop in drops)
    model.load_state_dict({key: value for key, value in base.state_dict().items() if not key.startswith(gone)})
    names = [block.name for block in list_blocks(base) if block.name not in drops]
    assert [block.name for block in list_blocks(model)] == names
    assert model.feature_info == base.feature_info
    for module in (m for n, m in base.named_modules() if n in drops):
        module.forward = lambda x, *args, **kwargs: x
    x = images()
    assert torch.equal(model(x), base(x))
    rates = {n: m.drop_prob for n, m in base.named_modules() if hasattr(m, "drop_prob")}
    kept = {n: m.drop_prob for n, m in model.named_modules() if hasattr(m, "drop_prob")}
    assert kept == {n: rate for n, rate in rates.items() if not n.startswith(gone)}
    if hasattr(model, "set_input_size"):
        model.set_input_size(img_size=(96, 64))
        assert model(images(size=(96, 64))).shape == (1, 5)


@pytest.mark.parametrize("name", [name for name in QUICK if list_poolings(small(name))])
@torch.inference_mode()
def test_strided_pools_take_the_place_of_what_makes_maps_smaller(name):
    base = small(base_of(name))
    poolings = list_poolings(base)
    model = stir(small(name, pools=[pooling.name for pooling in poolings]), 0.3)
    result = model.load_state_dict(base.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(".context_pool." in key for key in result.missing_keys)
    for size in ((64, 96), (70, 90)):
        x = images(size=size)
        maps = base.forward_intermediates(x, intermediates_only=True)
        for own, other in zip(model.forward_intermediates(x, intermediates_only=True), maps, strict=True):
            assert own.shape == other.shape
            assert own.isfinite().all()
    assert [pooling.name for pooling in list_poolings(model)] == [pooling.name for pooling in poolings]
    for pooling in poolings:
        pool = record(model.get_submodule(f"{pooling.name}.context_pool"))
        model(x)
        assert pool["output"].shape[2:] == tuple(-(-size // pooling.stride) for size in pool["input"].shape[2:])
    with pytest.raises(cp_vision.UserError, match="a pool already stands there"):
        cp_vision.insert_pools(model, [poolings[0].name])
    sites = {site.name: site for site in cp_vision.find_sites(base, (3, 64, 96))}
    own = {site.name: site for site in cp_vision.find_sites(model, (3, 64, 96))}
    assert sites.keys() == own.keys()
    assert all(own[pooling.name].grid == sites[pooling.name].grid for pooling in poolings)


@torch.inference_mode()
def test_a_strided_pool_of_tiny_support_takes_every_other_pixel():
    options = {"sigma_min": 1e-3, "support_range": 1e-6, "learned_weight": False, "backend": "exact"}
    model = small("cp_resnet50d", pools=["maxpool", "layer2.0.downsample"], pool_options=options)
    stem, whole = record(model.maxpool), record(model.layer2[0].conv1)
    model(images())
    # Between four pixels lies the place of a strided output, or on one of them.
    assert stem["output"].shape == (1, 64, 16, 24)
    low, high = stem["input"].amin(), stem["input"].amax()
    assert low <= stem["output"].amin() <= stem["output"].amax() <= high
    assert whole["input"].shape[2:] == (8, 12)


def test_a_saved_model_takes_a_new_head(tmp_path):
    model = small("cp_test_vit", drops=["blocks.1"], pools=["blocks.0", "blocks.3"])
    save_for_hf(model, tmp_path, safe_serialization=True)
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3).eval()
    x = images()
    torch.testing.assert_close(other.forward_features(x), model.forward_features(x))
    assert other(x).shape == (1, 3)


@torch.inference_mode()
def test_a_model_changed_by_hand_is_saved_as_what_it_is(tmp_path):
    for base in ("resnet18", "test_efficientnet"):
        model = timm.create_model(base, num_classes=4).eval()
        cfg = dict(model.pretrained_cfg)
        blocks = list_blocks(model)
        first, second, *_, last = (block.name for block in blocks)
        cp_vision.insert_pools(model, [first], hidden=3)
        cp_vision.insert_pools(stir(model), [second], hidden=3)
        drop = next((b.name for b in blocks[2:] if b.droppable), None)
        cp_vision.drop_blocks(model, [drop] if drop else [])
        save_for_hf(model, tmp_path / base, safe_serialization=True)
        loaded = timm.create_model(f"local-dir:{tmp_path / base}", pretrained=True).eval()
        x = torch.randn(1, *get_model_input_config(model)["input_size"])
        assert torch.equal(loaded(x), model(x))
        assert timm.create_model(base).pretrained_cfg == cfg | {"num_classes": cfg["num_classes"]}
        # The arguments of a model say one set of options: others are refused, not forgotten.
        cp_vision.insert_pools(model, [last], hidden=2)
        with pytest.raises(ValueError, match="'pool_options' is not serializable"):
            save_for_hf(model, tmp_path / "mixed", safe_serialization=True)


# A model of another family, and how its blocks hold their channels.
OTHERS = [
    ("test_efficientnet", "NCHW"),
    ("test_byobnet", "NCHW"),
    ("test_mambaout", "NHWC"),
    ("test_nfnet", "NCHW"),
    ("test_vit_relpos", "tokens"),
]


@pytest.mark.parametrize(("base", "layout"), OTHERS)
@torch.inference_mode()
def test_other_families_by_the_generic_name(base, layout, tmp_path):
    plain = timm.create_model(base, num_classes=5).eval()
    blocks = list_blocks(plain)
    assert layout in {block.layout for block in blocks}
    args = {"pools": [block.name for block in blocks], "num_classes": 5}
    model = timm.create_model("context_pooled", base=base, **args).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, *get_model_input_config(plain)["input_size"])
    close(model(x), plain(x))
    pools = [block.name for block in blocks[1:]]
    drops = [block.name for block in blocks[:1] if block.droppable]
    model = stir(timm.create_model("context_pooled", base=base, drops=drops, pools=pools, num_classes=5).eval())
    save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(x), model(x))
    assert (model(x) - plain(x)).abs().max() > 1e-6
    assert cp_vision.count_macs(model) == cp_vision.count_macs(loaded)
    assert {site.name for site in cp_vision.find_sites(plain)} == {block.name for block in blocks}


@pytest.mark.parametrize("base", [name for name, _ in OTHERS])
@torch.inference_mode()
def test_features_of_other_families(base):
    """A family whose extractor rebuilds the model gets timm's general one, with the same features."""
    plain = timm.create_model(base, features_only=True).eval()
    pools = [block.name for block in list_blocks(timm.create_model(base))]
    model = timm.create_model("context_pooled", base=base, features_only=True, pools=pools).eval()
    body = model.model if hasattr(model, "model") else model
    keys = plain.state_dict()
    missing = body.load_state_dict({key.removeprefix("model."): value for key, value in keys.items()}, strict=False)
    assert not [key for key in missing.missing_keys if ".context_pool." not in key and not key.startswith("head")]
    x = torch.randn(1, *get_model_input_config(timm.create_model(base))["input_size"])
    for one, other in zip(model(x), plain(x), strict=True):
        close(one, other)
    assert model.feature_info.channels() == plain.feature_info.channels()
    assert model.feature_info.reduction() == plain.feature_info.reduction()


# Of timm 1.0.31: their blocks change the grid, take more than one, or are none.
REFUSED = {
    *("coat", "crossvit", "deepseek_vit", "densenet", "dla", "efficientvim"),
    *("gemma4_vit", "hiera", "inception_v3", "levit", "mlp_mixer", "mvitv2"),
    *("naflexvit", "nasnet", "pnasnet", "pvt_v2", "qwen3_vit", "rdnet"),
    *("selecsls", "tnt", "twins", "vgg", "xception", "xcit"),
}


@pytest.mark.slow
# The meta device runs Sequencer's LSTM step by step, which takes minutes; cp_models is our own.
@pytest.mark.parametrize("module", [m for m in timm.list_modules() if m not in ("cp_models", "sequencer")])
def test_a_base_of_any_module_of_timms_works_or_says_why_not(module):
    name, told = timm.list_models(module=module)[0], ""
    with torch.device("meta"):
        try:
            model = timm.create_model("context_pooled", base=name)
        except cp_vision.UserError as error:
            told = str(error)
        if "no blocks to pool after by default" in told:
            # One that pools nowhere by default pools where it is told to.
            last = list_blocks(timm.create_model(name))[-1].name
            model, told = timm.create_model("context_pooled", base=name, pools=[last]), ""
    if told:
        assert "models are not supported: " in told
        assert "\n" not in told
        assert module in REFUSED
    else:
        assert cp_vision.find_sites(model)


def test_creating_a_pooled_model_leaves_timm_alone():
    torch.manual_seed(0)
    before = timm.create_model("resnet18").state_dict()
    timm.create_model("cp_resnet18")
    torch.manual_seed(0)
    model = timm.create_model("resnet18")
    assert list(model.state_dict()) == list(before)
    assert not any(module._forward_hooks for module in model.modules())
    assert get_model_input_config(model)["input_size"] == (3, 224, 224)


TORCHVISION = [
    ("resnet18", {"num_classes": 5}, (64, 96), "maxpool"),
    ("resnext50_32x4d", {"num_classes": 5}, (64, 96), "layer3.0.downsample"),
    ("vit_b_32", {"image_size": 96, "num_classes": 5}, (96, 96), "encoder.layers.encoder_layer_3"),
]


@pytest.mark.parametrize(("base", "args", "size", "site"), TORCHVISION)
@torch.inference_mode()
def test_torchvision_models(base, args, size, site):
    torch.manual_seed(0)
    plain = torchvision.models.get_model(base, **args).eval()
    for parameter in plain.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    model = torchvision.models.get_model(f"cp_{base}", **args).eval()
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(".context_pool." in key for key in missing)
    x = images(size=size)
    close(model(x), plain(x))
    drop = next(block.name for block in list_blocks(plain) if block.droppable)
    model = torchvision.models.get_model(f"cp_{base}", pools=[site], drops=[drop], **args).eval()
    sites = cp_vision.find_sites(model, (3, *size))
    assert site in {one.name for one in sites}
    assert drop not in {one.name for one in sites}
    if "vit" in base:
        modes = torchvision.models.get_model(f"cp_{base}", pool_options={"mode": "pre_attn"}, **args).eval()
        assert modes(x).shape == (1, 5)
    program = torch.export.export(stir(model, 0.3), (x,))
    close(program.module()(x), model(x), 1e-4)
    if "vit" not in base:
        leaves = {"leaf_modules": [cp_vision.ContextPool2d]}
        features = create_feature_extractor(model, ["flatten"], tracer_kwargs=leaves)
        close(model.fc(features(x)["flatten"]), model(x))


def test_torchvisions_weights(tmp_path, monkeypatch):
    weights = torchvision.models.get_model_weights("cp_resnet18")
    assert weights is torchvision.models.ResNet18_Weights
    # torchvision takes a file of the right name for the download.
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    os.makedirs(folder)
    torch.save(state, folder / weights.IMAGENET1K_V1.url.rpartition("/")[2])
    model = torchvision.models.get_model("cp_resnet18", weights="IMAGENET1K_V1")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    for wrong in ("V3", 3):
        with pytest.raises(cp_vision.UserError, match=r"must be one of ResNet18_Weights\.IMAGENET1K_V1, or None"):
            torchvision.models.get_model("cp_resnet18", weights=wrong)


@torch.inference_mode()
def test_odd_models():
    # Maps whose sides round unevenly are still read as they lie.
    overlay = {"input_size": (3, 250, 300)}
    model = timm.create_model("context_pooled", base="efficientnet_b0", pretrained_cfg_overlay=overlay)
    assert {block.layout for block in list_blocks(model)} == {"NCHW"}
    # A block that splits its input tells the stage's width by its shortcut.
    model = timm.create_model("context_pooled", base="skresnet18", pools=["layer2.0.downsample"]).eval()
    assert model(images()).shape == (1, 1000)
    # As many channels as rows and columns: the other stages tell how maps lie.
    model = timm.create_model("test_mambaout", dims=(40, 32, 48, 64))
    assert {block.layout for block in list_blocks(model)} == {"NHWC"}
    # A patch embedding that knows nothing but its grid.
    assert cp_vision.find_sites(timm.create_model("pit_ti_224"))[-1].grid == (27, 27)
    with pytest.raises(cp_vision.UserError, match="no blocks to pool after by default"):
        timm.create_model("context_pooled", base="caformer_s18")
    with pytest.raises(RuntimeError, match=r"can't trace a context pool; use torch\.export"):
        torch.jit.trace(timm.create_model("cp_test_resnet").eval(), images())


@pytest.mark.parametrize("base", ["resnet18", "regnetx_002", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_a_model_whose_last_stages_were_cut_off(base):
    model = timm.create_model(base).eval()
    blocks, poolings = list_blocks(model), list_poolings(model)
    model.prune_intermediate_layers([1], prune_head=True)
    names = [block.name for block in list_blocks(model)]
    assert 0 < len(names) < len(blocks)
    assert names == [block.name for block in blocks[: len(names)]]
    left = [pooling.name for pooling in list_poolings(model)]
    assert left == [pooling.name for pooling in poolings[: len(left)]]
    x = torch.randn(1, *get_model_input_config(model)["input_size"])
    with torch.inference_mode():
        before = model(x)
        close(cp_vision.insert_pools(model, names)(x), before)


@pytest.mark.parametrize(
    ("base", "coarse"), [("darknet53", True), ("nf_resnet50", True), ("repvgg_a0", True), ("test_vit_relpos", False)]
)
def test_what_weighs_channels_makes_no_transformer(base, coarse):
    """Modules that timm calls attn, or none in their place: a ConvNet's default pools stay off its fine maps."""
    with torch.device("meta"):
        model = timm.create_model(base)
    wanted = [block.name for block in list_blocks(model) if block.reduction >= 16 or not coarse]
    assert list(default_pools(model)) == wanted


def test_dilated_stages_are_fine_maps():
    dilated = torchvision.models.get_model("resnet50", replace_stride_with_dilation=[False, True, True])
    assert {block.reduction for block in list_blocks(dilated)} == {4, 8}
    assert default_pools(dilated) == ()
    plain = torchvision.models.get_model("resnet50")
    wanted = default_pools(plain)
    cp_vision.insert_pools(plain, ["maxpool", "layer2.0.downsample", "layer3.0.downsample"])
    assert default_pools(plain) == wanted


@pytest.mark.parametrize(
    ("base", "block", "no_block"),
    [
        ("hgnetv2_b0", "stages.2.blocks.1", "stages.2.blocks.1.layers.0"),
        ("dpn48b", "features.conv5_3", "features.conv5_bn_ac"),
        ("volo_d1_224", "network.0.0", "network.1"),
    ],
)
def test_blocks_are_neither_their_parts_nor_what_stands_between(base, block, no_block):
    with torch.device("meta"):
        model = timm.create_model(base)
    names = [block.name for block in list_blocks(model)]
    assert block in names
    assert no_block not in names


def test_the_last_block_that_is_found_need_not_be_the_models_last():
    with torch.device("meta"):
        model = timm.create_model("pit_ti_224")
    assert default_pools(model) == tuple(block.name for block in list_blocks(model))


@torch.inference_mode()
def test_what_timm_fuses_keeps_its_pools():
    model = timm.create_model("shvit_s1").eval()
    stir(cp_vision.insert_pools(model, [block.name for block in list_blocks(model)]))
    x = torch.randn(1, 3, 224, 224)
    fused = timm.utils.reparameterize_model(model)
    pools = [[n for n, m in each.named_modules() if isinstance(m, cp_vision.ContextPool2d)] for each in (model, fused)]
    assert pools[0] == pools[1] != []
    close(fused(x), model(x))


@pytest.mark.parametrize(("name", "mode"), [(f"cp_test_{vit}", m) for vit in ("vit", "vit2") for m in POOL_MODES])
@torch.inference_mode()
def test_each_pool_of_the_default_has_an_effect(name, mode):
    """After the last block of a ViT only its class token may be looked at, which isn't pooled."""
    model = timm.create_model(name, pool_options={"mode": mode}).eval()
    x = images(size=(160, 160))
    pools = [module for module in model.modules() if isinstance(module, cp_vision.ContextPool2d)]
    assert len(pools) == len(model.blocks) - (model.global_pool == "token" and mode != "pre_attn")
    before = model(x)
    for pool in pools:
        old = copy.deepcopy(pool.state_dict())
        for parameter in pool.parameters():
            torch.nn.init.normal_(parameter)
        assert not torch.equal(model(x), before)
        pool.load_state_dict(old)
    assert torch.equal(model(x), before)


def test_class_attention_looks_at_what_the_last_block_gives():
    with torch.device("meta"):
        model = timm.create_model("cait_xxs24_224")
    assert default_pools(model)[-1] == list_blocks(model)[-1].name


def test_a_blocks_cost_leaves_out_the_pool_of_its_down_sampling():
    model = timm.create_model("test_resnet")
    plain = cp_vision.count_macs(model)
    cp_vision.insert_pools(model, ["layer2.0.downsample"])
    sites = {site.name: site for site in cp_vision.find_sites(model)}
    down = sites["layer2.0.downsample"]
    pool = cp_vision.count_macs(model) - plain - (sites["layer2.0"].macs - macs_of(timm.create_model("test_resnet")))
    assert pool == pool_macs(model.layer2[0].downsample.context_pool, down.grid)


def macs_of(model):
    return next(site.macs for site in cp_vision.find_sites(model) if site.name == "layer2.0")


HOOKED = """
import sys, torch
import cp_vision
model = torch.load(sys.argv[1], weights_only=False)
numbers = [n for module in model.modules() for n in (*module._forward_hooks, *module._forward_pre_hooks)]
new = model.register_forward_hook(lambda *args: None).id
print(len(numbers), new > max(numbers))
"""


@pytest.mark.parametrize(
    ("name", "args", "hooks"),
    [
        ("cp_test_vit", {"pools": ["blocks.1"], "dynamic_img_size": True}, 2),
        ("cp_test_vit", {"pools": ["blocks.1"], "pool_options": {"mode": "pre_attn"}}, 2),
        ("cp_test_resnet", {"pools": ["layer2.0.downsample", "layer3.0"]}, 2),
    ],
)
def test_a_pickled_models_hooks_keep_their_numbers(name, args, hooks, tmp_path):
    """A new process counts anew, and a hook that got the number of a pool's would stand in its place."""
    model = timm.create_model(name, **args)
    torch.save(model, tmp_path / "model.pt")
    command = [sys.executable, "-c", HOOKED, str(tmp_path / "model.pt")]
    count, is_new = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(count) == hooks
    assert is_new == "True"


@pytest.mark.slow
def test_an_export_with_open_sizes_leaves_the_model_as_it_was():
    model = timm.create_model("cp_test_vit", dynamic_img_size=True).eval()
    sides = {i: 16 * torch.export.Dim(name, min=2, max=20) for i, name in ((2, "rows"), (3, "columns"))}
    torch.export.export(model, (torch.randn(2, 3, 160, 192),), dynamic_shapes=(sides,))
    other = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    x = images()
    close(other(x), copy.deepcopy(model)(x))
    assert cp_vision.find_sites(model)


@pytest.mark.parametrize(
    ("first", "options", "then", "mode"),
    [
        (["blocks.0"], {"mode": "gated"}, {}, "gated"),
        (["blocks.0"], {"backend": "auto"}, {}, "gated"),
        ([], {"mode": "replace"}, {}, "gated"),
        (["blocks.0"], {"mode": "replace"}, {"mode": "replace", "hidden": None}, "replace"),
    ],
)
def test_equal_options_are_saved_however_they_are_told(first, options, then, mode, tmp_path):
    model = timm.create_model("cp_test_vit", pools=first, pool_options=options)
    cp_vision.insert_pools(model, ["blocks.1"], **then)
    save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert loaded.blocks[1].context_pool.mode == mode
    assert list(loaded.state_dict()) == list(model.state_dict())
