"""Models with stand-ins as timm's and torchvision's: named, saved, loaded, counted, exported."""

import copy
import json
import re
from pathlib import Path

import pytest
import timm
import torch
from onnx_graphs import check_onnx
from slow_cases import slow_unless
from small_models import UNTRACEABLE, base_of, close, hooked, images, is_added, short, small, small_args, stir
from timm.models import FeatureGraphNet, create_feature_extractor, save_for_hf
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor as torchvision_extractor

import cp_vision
from cp_vision import Architecture, UserError, drop_blocks, insert_pools, replace_blocks
from cp_vision.anatomy.places import find_places
from cp_vision.anatomy.replacement import Replacement
from cp_vision.cost.macs import format_macs

SWIN = "cp_swin_tiny_patch4_window7_224"

# Pools, drops, halves and runs in one model.
TOGETHER = [
    (
        "cp_test_vit",
        {"img_size": 64},
        {"pools": ["blocks.0", "blocks.5"], "drops": ["blocks.1"], "replaces": ["blocks.2:blocks.3", "blocks.5.mlp"]},
    ),
    (
        SWIN,
        {},
        {
            "pools": {"layers.0.blocks.1": {"mode": "pre_attn"}},
            "drops": ["layers.2.blocks.0"],
            "replaces": {"layers.0.blocks.0.attn": {"rank": 3}, "layers.0.blocks.1.mlp": {}, "layers.1.blocks.1": {}},
        },
    ),
    (
        "cp_convnext_tiny",
        {},
        {"pools": ["stages.1.downsample"], "drops": ["stages.3.blocks.1"], "replaces": ["stages.2.blocks.0"]},
    ),
    (
        "cp_resnet18",
        {},
        {"pools": ["layer3.0.downsample", "layer3.0"], "drops": ["layer4.1"], "replaces": ["layer2.1"]},
    ),
    ("cp_regnety_002", {}, {"pools": ["s3.b1"], "drops": [], "replaces": {"s3.b2:s3.b3": {"supports": 2, "rank": 4}}}),
]


def size_of(args):
    return (args["img_size"],) * 2 if isinstance(args.get("img_size"), int) else (64, 96)


@pytest.mark.parametrize(("name", "args", "changes"), TOGETHER, ids=[row[0] for row in TOGETHER])
@torch.inference_mode()
def test_all_changes_of_one_model(name, args, changes, tmp_path):
    x = images(2, size=size_of(args))
    options = {"replace_options": {"share": 0.3}, "pool_options": {"hidden": 3}}
    shared = {} if isinstance(changes["replaces"], dict) else options
    model = stir(small(name, **args, **changes, **shared), 0.3)
    # As if it were changed by hand, in another order.
    other = small(base_of(name), **args)
    if name != "cp_test_vit":
        insert_pools(other, changes["pools"], **shared.get("pool_options", {}))
    replace_blocks(other, changes["replaces"], **shared.get("replace_options", {}))
    drop_blocks(other, changes["drops"])
    if name == "cp_test_vit":
        insert_pools(other, changes["pools"], **shared.get("pool_options", {}))
    other.load_state_dict(model.state_dict())
    close(other(x), model(x))
    # And as it is saved: shares as ranks.
    save_for_hf(other, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(x), other(x))
    noted = json.loads(Path(tmp_path, "config.json").read_text())
    assert noted["architecture"] == name
    assert list(noted["model_args"]["replaces"]) == list(changes["replaces"])
    assert "replace_options" not in noted["model_args"]
    for run, own in noted["model_args"]["replaces"].items():
        assert "share" not in own
        assert own["rank"] == loaded.get_submodule(run.partition(":")[0]).stand_in.rank
    again = replace_blocks(copy.deepcopy(model), [])
    assert again._model_args == model._model_args


@torch.inference_mode()
def test_of_any_family_by_the_generic_name(tmp_path):
    base = timm.create_model("test_mambaout", num_classes=5).eval()
    runs = ["stages.2.blocks.1:stages.2.blocks.2"]
    model = timm.create_model("context_pooled", base="test_mambaout", pools=[], replaces=runs, num_classes=5).eval()
    model.load_state_dict(base.state_dict(), strict=False)
    x = images(size=(96, 96))
    close(model(x), drop_blocks(copy.deepcopy(base), ["stages.2.blocks.1", "stages.2.blocks.2"])(x))
    save_for_hf(stir(model, 0.3), tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(x), model(x))
    # Changed by hand, the base gets that name.
    by_hand = replace_blocks(base, runs)
    assert by_hand.pretrained_cfg["architecture"] == "context_pooled"
    assert by_hand._model_args["base"] == "test_mambaout"


@torch.inference_mode()
def test_the_rank_of_a_share_stays_at_another_size(tmp_path):
    model = stir(small("cp_test_vit", img_size=160, pools=[], replaces=["blocks.1"], replace_options={"share": 0.1}))
    rank = model.blocks[1].stand_in.rank
    save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=64, num_classes=3).eval()
    assert loaded.blocks[1].stand_in.rank == rank
    for key, value in model.blocks[1].state_dict().items():
        assert torch.equal(loaded.blocks[1].state_dict()[key], value)
    assert loaded(images(size=(64, 64))).shape == (1, 3)


def of_file(state, folder):
    torch.save(state, folder / "weights.pth")
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(folder / "weights.pth"), "num_classes": 5}}


FROM_FILES = [
    ("cp_test_vit", ["blocks.1:blocks.3", "blocks.4.attn"]),
    (SWIN, ["layers.0.blocks.0:layers.0.blocks.1", "layers.1.blocks.1.attn", "layers.1.blocks.0.mlp"]),
    (SWIN, {"layers.0.blocks.1.attn": {"kind": "narrow_attention", "heads": 1}}),
    ("cp_convnext_tiny", ["stages.1.blocks.0:stages.1.blocks.1", "stages.2.blocks.0.mlp"]),
    ("cp_resnet18", ["layer2.1"]),
    ("cp_resnet18", {"layer2.1": {"kind": "narrow_conv", "channels": 4}}),
    ("cp_deit3_small_patch16_224", ["blocks.0", "blocks.2.mlp"]),
]


@pytest.mark.parametrize(("name", "runs"), slow_unless({"cp_test_vit", "cp_resnet18"}, FROM_FILES))
@torch.inference_mode()
def test_checkpoint_files(name, runs, tmp_path):
    """Of the plain base, of the same replacements, of fewer of them; with as many classes or others."""
    args = {**small_args(name), "num_classes": 5, "pools": []}
    base = small(base_of(name))
    known = base.state_dict()
    model = timm.create_model(name, replaces=runs, **args, **of_file(known, tmp_path)).eval()
    own = {key: value for key, value in model.state_dict().items() if not is_added(key)}
    assert own.keys() < known.keys()
    assert all(torch.equal(value, known[key]) for key, value in own.items())
    stir(model, 0.3)
    again = timm.create_model(name, replaces=runs, **args, **of_file(model.state_dict(), tmp_path)).eval()
    assert torch.equal(again(images()), model(images()))
    fewer = timm.create_model(
        name, replaces=runs, **{**args, "num_classes": 3}, **of_file(model.state_dict(), tmp_path)
    )
    weights = model.state_dict()
    body = {key: value for key, value in fewer.state_dict().items() if not key.startswith(("head", "fc"))}
    assert all(torch.equal(value, weights[key]) for key, value in body.items())
    broken = {key: value for key, value in weights.items() if not key.endswith("context_pool_block.read_out.bias")}
    lacking = {key for key in weights if key not in broken}
    with pytest.raises(UserError, match=re.escape(min(lacking)[:20])):
        timm.create_model(name, replaces=runs, **args, **of_file(broken, tmp_path))
    # It has no weights of what it replaced.
    with pytest.raises(UserError, match=r"checkpoint"):
        timm.create_model(name, replaces=[], **args, **of_file(weights, tmp_path))
    with pytest.raises(UserError, match=r"checkpoint"):
        timm.create_model(name, replaces={run: {"rank": 1} for run in runs}, **args, **of_file(weights, tmp_path))


HEADS = {"kind": "narrow_attention", "heads": 1, "rank": 16}
THIN = {"kind": "narrow_attention", "heads": 2, "head_channels": 6, "map": False}
ALONE = {"kind": "narrow_mlp", "units": 16, "map": False}
ARCHITECTURES = [
    ("test_vit", {"img_size": 64}, {"blocks.1:blocks.2": {"rank": 5}, "blocks.4.attn": {}}),
    ("test_vit", {"img_size": 64}, {"blocks.3": {"share": 0.2, "learned_support": True}}),
    ("resnet18", {}, {"layer3.1": {"pool": False}}),
    pytest.param(
        *("swin_tiny_patch4_window7_224", {}, {"layers.2.blocks.2.attn": {}, "layers.2.blocks.3.mlp": {}}),
        marks=pytest.mark.slow,
    ),
    ("test_vit", {"img_size": 64}, {"blocks.1.mlp": {"kind": "narrow_mlp", "units": 16}, "blocks.3.attn": HEADS}),
    ("test_vit", {"img_size": 64}, {"blocks.1.mlp": ALONE, "blocks.3.attn": THIN}),
    pytest.param(
        *("efficientnet_lite0", {}, {"blocks.2.1": {"kind": "narrow_conv", "channels": 8, "pool": True}}),
        marks=pytest.mark.slow,
    ),
    pytest.param(
        *("swinv2_tiny_window8_256", {"depths": (2, 2, 2, 2)}, {"layers.1.blocks.1.attn": {**HEADS, "pool": True}}),
        marks=pytest.mark.slow,
    ),
    ("resnet18", {}, {"layer2.1": {"kind": "narrow_conv", "channels": 16}}),
    pytest.param(
        *("resnet50", {}, {"layer3.1": {"kind": "narrow_conv", "channels": 64, "pool": True}}),
        marks=pytest.mark.slow,
    ),
    pytest.param(
        *("regnety_002", {}, {"s4.b2": {"kind": "narrow_conv", "channels": 40}}),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("base", "args", "runs"), ARCHITECTURES)
def test_an_architecture_with_replacements(base, args, runs):
    one = Architecture(base, replaces=runs, model_args=args)
    two = Architecture.from_json(one.to_json())
    assert two == one
    assert hash(two) == hash(one)
    assert two.to_json() == one.to_json()
    plain = Architecture(base, model_args=args)
    assert plain != one
    model = plain.build()
    places = find_places(model, list(runs))
    replace_blocks(model, runs)
    made = {part.name: part.stand_in for part in model.modules() if isinstance(part, Replacement)}
    macs = sum(place.count * made[place.name].macs(place.grid) - place.macs for place in places)
    assert one.macs() == cp_vision.count_macs(model)
    assert one.macs() == pytest.approx(plain.macs() + macs, rel=1e-3)
    text = str(one)
    assert all(run in text for run in runs)
    assert format_macs(one.macs()) in text
    assert len(text.splitlines()) == len(str(plain).splitlines()) + len(runs)
    assert list(one.build().state_dict()) == list(model.state_dict())


def test_an_architecture_without_replacements_is_written_as_before():
    one = Architecture("test_vit", ["blocks.1"], ["blocks.2"], {"mode": "replace"}, {"img_size": 64})
    assert one.to_json() == (
        '{"base": "test_vit", "drops": ["blocks.2"], "model_args": {"img_size": 64}, '
        '"pool_options": {"mode": "replace"}, "pools": ["blocks.1"]}'
    )
    assert one.create_args.keys() == {"img_size", "pools", "drops", "pool_options"}
    listed = Architecture("test_vit", replaces=["blocks.1", "blocks.2.mlp"])
    assert listed == Architecture("test_vit", replaces={"blocks.1": {}, "blocks.2.mlp": {}})


WRONG = [
    (lambda: Architecture("test_vit", replaces="blocks.1"), "replaces 'blocks"),
    (lambda: Architecture("test_vit", replaces={"blocks.1": {"rank": {1}}}), "replaces {"),
    (lambda: Architecture.from_json('{"base": "test_vit", "replaces": 3}'), "replaces 3"),
    (lambda: Architecture("test_vit", replaces=["blocks.7"]).build(), r"'blocks\.7'"),
    (lambda: Architecture("test_vit", replaces={"blocks.1": 3}).build(), "3"),
    (lambda: Architecture("test_vit", ["blocks.1"], replaces=["blocks.1"]).build(), r"'blocks\.1'.*replaced"),
    (lambda: Architecture("test_vit", (), ["blocks.1"], replaces=["blocks.1"]).build(), r"'blocks\.1'.*dropped"),
    (lambda: timm.create_model("cp_test_vit", replaces="blocks.1"), r"\['blocks\.1'\]"),
    (lambda: timm.create_model("cp_test_vit", replaces=3), "replaces 3"),
    (lambda: timm.create_model("cp_test_vit", replaces={"blocks.1"}), r"replaces {'blocks\.1'}"),
    (lambda: timm.create_model("cp_test_vit", replaces=["blocks.1"], replace_options=3), "options 3"),
    (lambda: timm.create_model("cp_test_vit", replace_options={"ranks": 3}), "'ranks'.*'rank'"),
    (lambda: get_model("cp_resnet18", replaces="layer1.1"), r"\['layer1\.1'\]"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


TORCHVISION = [
    ("cp_resnet18", {}, {"layer2.1": {}, "layer4.1": {"pool": False}}, (64, 96)),
    (
        "cp_vit_b_32",
        {"image_size": 64},
        {
            "encoder.layers.encoder_layer_1:encoder.layers.encoder_layer_10": {},
            "encoder.layers.encoder_layer_0.mlp": {},
        },
        (64, 64),
    ),
]


@pytest.mark.parametrize(("name", "args", "runs", "size"), TORCHVISION)
@torch.inference_mode()
def test_torchvisions_registry(name, args, runs, size):
    torch.manual_seed(0)
    model = stir(get_model(name, pools=[], replaces=runs, replace_options={"rank": 3}, num_classes=5, **args), 0.1)
    model.eval()
    base = get_model(base_of(name), num_classes=5, **args).eval()
    other = stir(replace_blocks(base, runs, rank=3), 0.1)
    other.load_state_dict(model.state_dict())
    close(other(images(size=size)), model(images(size=size)))
    assert all(part.stand_in.rank == 3 for part in model.modules() if isinstance(part, Replacement))


OF_EACH_LAYOUT = [
    ("cp_vit_small_patch16_224", ["blocks.1:blocks.2", "blocks.3.attn"]),
    (SWIN, ["layers.0.blocks.1", "layers.1.blocks.0.attn", "layers.1.blocks.1.mlp"]),
    ("cp_convnext_tiny", ["stages.1.blocks.0:stages.1.blocks.1"]),
    ("cp_resnet18", ["layer2.1"]),
    ("cp_regnety_002", ["s3.b2:s3.b3"]),
]


@pytest.mark.parametrize(("name", "runs"), OF_EACH_LAYOUT)
@torch.inference_mode()
def test_features(name, runs):
    """By timm's own wrapper, by intermediate outputs, and from a traced graph: those that hooks see."""
    args = {"pools": [], "replaces": runs}
    model, x = stir(small(name, **args), 0.3), images(2)
    features = timm.create_model(name, features_only=True, **args, **small_args(name)).eval()
    state = model.state_dict()
    target = features.state_dict()
    # The wrapper has names of its own: model.blocks.1, stages_1.blocks.0.
    theirs = {key: re.sub(r"^(layers|stages|stem)_(\d)", r"\1.\2", key.removeprefix("model.")) for key in target}
    features.load_state_dict({key: state[name] for key, name in theirs.items()})
    _, maps = model.forward_intermediates(x, indices=list(features.feature_info.out_indices))
    for got, wanted in zip(features(x), maps, strict=True):
        assert got.shape[0] == 2
        close(got, wanted if got.shape == wanted.shape else wanted.permute(0, 2, 3, 1))


class TestGraphs:
    """Feature extractors that trace a graph."""

    @staticmethod
    def check(model, extractor, x):
        names = [path for path, part in model.named_modules() if isinstance(part, Replacement)]
        expected = hooked(model, names, x)
        got = extractor(model, names).eval()(x)
        for name in names:
            close(got[name], expected[name])

    @pytest.mark.parametrize(("name", "runs"), OF_EACH_LAYOUT)
    @torch.no_grad()
    def test_where_the_base_can_be_traced(self, name, runs):
        base = small(base_of(name))
        taken = 0
        for extractor in (create_feature_extractor, torchvision_extractor):
            try:
                extractor(base, [base.feature_info[-1]["module"]])
            except UNTRACEABLE:
                continue
            model = stir(replace_blocks(small(base_of(name)), runs), 0.3)
            self.check(model, extractor, images(2))
            # The model itself runs, is copied and takes other images as before.
            close(copy.deepcopy(model)(images()), model(images()))
            taken += 1
        assert taken

    @torch.no_grad()
    def test_images_of_any_size(self):
        model = small("vit_small_patch16_224", dynamic_img_size=True)
        stir(replace_blocks(model, ["blocks.1", "blocks.2.mlp"]), 0.3)
        names = ["blocks.1", "blocks.2.mlp", "blocks.3"]
        features = create_feature_extractor(model, names).eval()
        for size in ((64, 96), (96, 64), (128, 128)):
            x = images(size=size)
            expected = hooked(model, names, x)
            got = features(x)
            assert all(got[name].shape == expected[name].shape for name in names)
            for name in names:
                close(got[name], expected[name])

    @torch.no_grad()
    def test_features_only_takes_a_graph(self):
        args = {
            "features_only": True,
            "feature_cls": "fx",
            "out_indices": (1, 2),
            "pools": [],
            "replaces": ["layer2.1"],
        }
        features = timm.create_model("cp_resnet18", **args, **small_args("cp_resnet18")).eval()
        assert isinstance(features, FeatureGraphNet)
        assert [tuple(one.shape[1:]) for one in features(images())] == [(32, 16, 24), (32, 8, 12)]

    @torch.no_grad()
    def test_models_of_torchvision(self):
        model = get_model("cp_vit_b_32", pools=[], image_size=64).eval()
        runs = ["encoder.layers.encoder_layer_1:encoder.layers.encoder_layer_10"]
        runs += ["encoder.layers.encoder_layer_0.self_attention"]
        stir(replace_blocks(model, runs), 0.1)
        # torchvision's tracer takes the number of a module of one node, encoder_layer_1, for one of its own.
        names = ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_11"]
        x = images(size=(64, 64))
        expected = hooked(model, names, x)
        got = torchvision_extractor(model, names).eval()(x)
        for name in names:
            close(got[name], expected[name])


# One of tokens, NCHW and windows.
GRAPHS = [
    ("cp_vit_small_patch16_224", ["blocks.0", "blocks.1.attn"]),
    ("cp_vit_small_patch16_224", {"blocks.0.mlp": {"kind": "narrow_mlp", "units": 16}, "blocks.1.attn": HEADS}),
    ("cp_vit_small_patch16_224", {"blocks.0.mlp": ALONE, "blocks.1.attn": THIN}),
    ("cp_resnet18", ["layer3.1"]),
    (SWIN, {"layers.0.blocks.1.attn": {**THIN, "map": True}, "layers.0.blocks.0.mlp": ALONE}),
    (SWIN, ["layers.0.blocks.0.attn", "layers.0.blocks.1.mlp", "layers.1.blocks.0"]),
    (SWIN, {"layers.0.blocks.0.attn": HEADS, "layers.0.blocks.1.attn": {**HEADS, "pool": True}}),
    ("cp_swinv2_tiny_window8_256", {"layers.0.blocks.1.attn": HEADS}),
    ("cp_resnet18", {"layer2.1": {"kind": "narrow_conv", "channels": 8}}),
    ("cp_resnet50", {"layer2.1": {"kind": "narrow_conv", "channels": 8}}),
    ("cp_regnety_002", {"s3.b2": {"kind": "narrow_conv", "channels": 8}}),
]


def for_graphs(name, runs):
    return stir((small if "resnet" in name else short)(name, pools=[], replaces=runs), 0.3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "runs"), GRAPHS)
@torch.no_grad()
def test_onnx_of_open_batch(name, runs, tmp_path):
    check_onnx(for_graphs(name, runs), tmp_path, [images(3)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "runs", "backend"),
    # The compiler's own backend takes a minute each.
    [(*case, backend) for case, backend in zip(GRAPHS, ("inductor", *["aot_eager"] * (len(GRAPHS) - 1)), strict=True)],
)
def test_the_compiler_trains_them(name, runs, backend):
    model = for_graphs(name, runs)
    torch.compiler.reset()
    x = images(2)
    plain = model(x)
    plain.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend=backend)(x)
    close(compiled.detach(), plain.detach(), 1e-4)
    compiled.square().sum().backward()
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    for p, gradient in zip((p for p in model.parameters() if p.grad is not None), gradients, strict=True):
        assert (p.grad - gradient).abs().max() <= 1e-3 * largest


@pytest.mark.parametrize("part", ["", "blocks.1", "blocks.1.mlp"])
@torch.no_grad()
def test_what_is_compiled_in_place_sees_a_replacement(part):
    """Its grid too, which a hook reads where images may have any size."""
    torch._dynamo.reset()
    model = small("test_vit", dynamic_img_size=True)
    model.get_submodule(part).compile(backend="eager")
    model(images())
    stir(replace_blocks(model, ["blocks.1.attn", "blocks.2"]), 0.3)
    for size in ((64, 96), (96, 64)):
        close(model(images(size=size)), copy.deepcopy(model)(images(size=size)))
