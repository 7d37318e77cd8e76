"""Weights from files go into pooled models as timm puts them into the base."""

import re

import pytest
import timm
import torch
from small_models import small, small_args

import cp_vision
from cp_vision.anatomy.known_families import list_blocks


def of_file(state, folder):
    torch.save(state, folder / "weights.pth")
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(folder / "weights.pth")}}


def test_plain_and_pooled_checkpoint_files(tmp_path):
    base = small("test_vit", img_size=160)
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
        ({k: v for k, v in state.items() if k != "blocks.2.norm1.weight"}, r"blocks\.2\.norm1\.weight"),
        ({k: v for k, v in state.items() if k != "blocks.1.context_pool.gate"}, r"blocks\.1\.context_pool\.gate"),
        (state | {"blocks.4.context_pool.gate": torch.zeros(64)}, r"blocks\.4\.context_pool\.gate"),
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


DROPPED = [
    ("cp_swin_tiny_patch4_window7_224", {}, small_args("cp_swin_tiny_patch4_window7_224")),
    ("cp_test_vit", {}, {}),
    ("context_pooled", {"base": "beit_base_patch16_224", "pools": []}, {"depth": 2}),
]


@pytest.mark.parametrize(("name", "more", "args"), DROPPED)
def test_a_plain_file_has_blocks_that_are_dropped(name, more, args, tmp_path):
    """Filters of some families look up the module of every key."""
    plain = timm.create_model(more.get("base", name.removeprefix("cp_")), **args)
    *_, last = [block.name for block in list_blocks(plain)]
    model = timm.create_model(name, drops=[last], **of_file(plain.state_dict(), tmp_path), **more, **args)
    known = plain.state_dict()
    assert all(torch.equal(value, known[key]) for key, value in model.state_dict().items() if "context_pool" not in key)


def test_a_checkpoint_that_lacks_blocks_loads_where_these_and_more_are_dropped(tmp_path):
    first = small("test_vit", img_size=160)
    cp_vision.drop_blocks(first, ["blocks.1"])
    args = {"num_classes": 5, "pools": ["blocks.3"], **of_file(first.state_dict(), tmp_path)}
    args["pretrained_cfg_overlay"]["num_classes"] = 5
    for drops in (["blocks.1"], ["blocks.1", "blocks.2"]):
        model = timm.create_model("cp_test_vit", drops=drops, **args)
        known = first.state_dict()
        assert all(torch.equal(v, known[key]) for key, v in model.state_dict().items() if "context_pool" not in key)
    with pytest.raises(cp_vision.UserError, match=r"blocks\.1\."):
        timm.create_model("cp_test_vit", drops=["blocks.2"], **args)


def test_a_pooled_checkpoint_of_other_classes_has_to_fit_all_the_same(tmp_path):
    """timm itself takes any keys where the number of classes differs."""
    pooled = timm.create_model("cp_test_vit", pools=["blocks.1"]).state_dict()
    args = {"num_classes": 5, "pools": ["blocks.1"]}
    model = timm.create_model("cp_test_vit", **args, **of_file(pooled, tmp_path))
    assert torch.equal(model.blocks[0].attn.qkv.weight, pooled["blocks.0.attn.qkv.weight"])
    broken = {key: value for key, value in pooled.items() if not key.startswith("blocks.5.")}
    with pytest.raises(cp_vision.UserError, match=r"blocks\.5\."):
        timm.create_model("cp_test_vit", **args, **of_file(broken, tmp_path))


def test_layer_scales_under_the_names_of_deit3(tmp_path):
    args = small_args("cp_deit3_small_patch16_224")
    plain = timm.create_model("deit3_small_patch16_224", **args)
    theirs = {re.sub(r"ls([12])\.gamma", r"gamma_\1", key): value for key, value in plain.state_dict().items()}
    assert theirs.keys() != plain.state_dict().keys()
    model = timm.create_model("cp_deit3_small_patch16_224", **of_file(theirs, tmp_path), **args)
    assert torch.equal(model.blocks[0].ls1.gamma, plain.blocks[0].ls1.gamma)


RESIZED = ["flexivit_small", "vit_base_patch16_radio_v3", "vit_huge_patch16_radio_v4", "deit3_small_patch16_224"]


@pytest.mark.parametrize("base", RESIZED)
def test_position_embeddings_are_resized_as_in_the_base(base, tmp_path):
    """Each family of ViTs has its own way."""
    if not timm.is_model(base):
        pytest.skip(f"timm {timm.__version__} has no {base}")
    args = {"depth": 1, "embed_dim": 64, "num_heads": 2}
    kwargs = of_file(timm.create_model(base, **args).state_dict(), tmp_path)
    plain, pooled = (timm.create_model(name, img_size=160, **kwargs, **args) for name in (base, f"cp_{base}"))
    found = pooled.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in plain.state_dict().items())


def test_weights_with_an_attention_pool_for_a_model_without(tmp_path):
    name, args = "vit_base_patch16_siglip_224", {"depth": 1, "embed_dim": 64, "num_heads": 2}
    kwargs = of_file(timm.create_model(name, **args).state_dict(), tmp_path)
    plain, pooled = (timm.create_model(n, global_pool="avg", **kwargs, **args) for n in (name, f"cp_{name}"))
    assert torch.equal(pooled.blocks[0].norm1.weight, plain.blocks[0].norm1.weight)
    assert torch.equal(pooled.patch_embed.proj.weight, plain.patch_embed.proj.weight)


def test_weights_without_a_head(tmp_path):
    """Those that learned without classes lack the head's norm, too; timm lets that tag alone pass."""
    args = small_args("cp_convnextv2_atto")
    state = timm.create_model("convnextv2_atto", **args).state_dict()
    body = {key: value for key, value in state.items() if not key.startswith("head.")}
    kwargs = {**of_file(body, tmp_path), **args}
    model = timm.create_model("cp_convnextv2_atto.fcmae", **kwargs)
    assert torch.equal(model.stem[0].weight, state["stem.0.weight"])
    with pytest.raises(cp_vision.UserError, match=r"head\.norm"):
        timm.create_model("cp_convnextv2_atto.fcmae_ft_in1k", **kwargs)
    model = timm.create_model("cp_convnextv2_atto.fcmae_ft_in1k", pretrained_strict=False, **kwargs)
    assert torch.equal(model.stem[0].weight, state["stem.0.weight"])
