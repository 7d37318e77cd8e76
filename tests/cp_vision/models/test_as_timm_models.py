"""A ``cp_`` model is a full citizen of timm: what its base can do, it does, with the same result.

Each check takes a registered name. One model of each layout goes through all of them in ``make test``, one of each
kind of block in ``make test-slow``, and every structure that the registry holds in ``make test-nightly``.
"""

import copy
import io
import json
import pickle
import re
import tempfile
from pathlib import Path

import pytest
import timm
import torch
from small_models import (
    FAMILIES,
    NAMES,
    QUICK,
    base_of,
    close,
    distinct,
    family_of,
    images,
    pair,
    short,
    small,
    small_args,
    stir,
)
from timm.data import resolve_model_data_config
from timm.models import save_for_hf
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import nn

from cp_vision.anatomy.default_pools import default_pools
from cp_vision.anatomy.downsamplings import list_poolings
from cp_vision.anatomy.known_families import list_blocks


@torch.inference_mode()
def preserves_the_function(name):
    base, model = pair(name)
    x = images()
    close(model(x), base(x))
    close(model.forward_features(x), base.forward_features(x))
    features = base.forward_features(x)
    close(model.forward_head(features, pre_logits=True), base.forward_head(features, pre_logits=True))


def pools_where_it_says(name):
    base, model = small(base_of(name)), small(name)
    pooled = {key.partition(".context_pool.")[0] for key in model.state_dict() if ".context_pool." in key}
    assert pooled == set(default_pools(base))
    blocks = list_blocks(base)
    if blocks[0].transformer:
        by_token = getattr(base, "global_pool", None) == "token"
        assert pooled == {block.name for block in (blocks[:-1] if by_token else blocks)}
    else:
        assert pooled == {block.name for block in blocks if block.reduction >= 16}
        assert 0 < len(pooled) < len(blocks)


def keeps_the_data_config(name):
    base, model = small(base_of(name)), small(name)
    assert model.pretrained_cfg["architecture"] == name
    for key in ("mean", "std", "crop_pct", "interpolation", "input_size", "num_classes", "hf_hub_id", "url"):
        assert model.pretrained_cfg.get(key) == base.pretrained_cfg.get(key), key
    assert resolve_model_data_config(model) == resolve_model_data_config(base)


@torch.inference_mode()
def gives_features(name):
    base, model = pair(name)
    x = images()
    last, maps = base.forward_intermediates(x)
    own_last, own_maps = model.forward_intermediates(x)
    close(own_last, last)
    assert len(own_maps) == len(maps)
    for own, other in zip(own_maps, maps, strict=True):
        close(own, other)
    args = {**small_args(name), "features_only": True}
    torch.manual_seed(0)
    features_of_base = timm.create_model(base_of(name), **args).eval()
    features = timm.create_model(name, **args).eval()
    result = features.load_state_dict(features_of_base.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert features.feature_info.channels() == features_of_base.feature_info.channels()
    assert features.feature_info.reduction() == features_of_base.feature_info.reduction()
    assert features.feature_info.module_name() == features_of_base.feature_info.module_name()
    for own, other in zip(features(x), features_of_base(x), strict=True):
        close(own, other)
    assert resolve_model_data_config(features) == resolve_model_data_config(features_of_base)
    (only,) = timm.create_model(name, **args, out_indices=[1])(x)
    (other,) = timm.create_model(base_of(name), **args, out_indices=[1])(x)
    assert only.shape == other.shape


@torch.inference_mode()
def takes_the_arguments_of_its_base(name):
    x = images()
    for args, image in (
        ({"num_classes": 0}, x),
        ({"in_chans": 1}, images(channels=1)),
        ({"global_pool": "avg"}, x),
        ({"drop_path_rate": 0.1}, x),
        ({"output_stride": 16}, x),
    ):
        try:
            small(base_of(name), **args)
        except (TypeError, AssertionError) as error:
            # The base doesn't take this argument; then the pooled model says the same.
            with pytest.raises(type(error), match=re.escape(str(error))):
                small(name, **args)
            continue
        base, model = pair(name, **args)
        close(model(image), base(image))
    base, model = pair(name)
    assert type(model.get_classifier()) is type(base.get_classifier())
    model.reset_classifier(3)
    assert model(x).shape == (1, 3)


def learns_in_groups(name):
    base, model = small(base_of(name)), small(name)
    if hasattr(base, "no_weight_decay"):
        assert model.no_weight_decay() == base.no_weight_decay()
    # A pool learns at the rate of the block it stands at.
    scales = {}
    for group in param_groups_layer_decay(model, layer_decay=0.5):
        scales |= {id(parameter): group["lr_scale"] for parameter in group["params"]}
    assert set(scales) == {id(parameter) for parameter in model.parameters()}
    for block in list_blocks(model):
        rates = {scales[id(parameter)] for parameter in block.module.parameters()}
        assert len(rates) == 1, block.name


def takes_images_of_other_sizes(name):
    size = (96, 64)
    x = images(size=size)
    if hasattr(small(name), "set_input_size"):
        base, model = pair(name)
        for one in (base, model):
            one.set_input_size(img_size=size)
        stir(model, 0.0)
        close(model(x), base(x))
        assert stir(model)(x).shape == base(x).shape
    if family_of(name) in ("vision_transformer", "deit"):
        base, model = pair(name, dynamic_img_size=True)
        close(model(x), base(x))
        stir(model)
        static = stir(pair(name, img_size=size)[1])
        static.load_state_dict(model.state_dict() | {"pos_embed": static.state_dict().get("pos_embed")}, strict=False)
        assert model(x).shape == static(x).shape
        close(model(images()), stir(pair(name)[1])(images()))


def checkpoints_gradients(name):
    found = []
    for enable in (False, True):
        model = stir(small(name, pool_options={"support_range": 0.5}), 0.3).train()
        for module in model.modules():
            # Statistics would be taken twice.
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        model.set_grad_checkpointing(enable)
        model(images(2)).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        # None goes without: distributed training needs no search for unused parameters.
        if type(model).__name__ != "VisionTransformerDistilled":
            unused = [key for key, p in model.named_parameters() if p.grad is None]
            base = small(base_of(name)).train()
            base(images(2)).square().sum().backward()
            assert unused == [key for key, p in base.named_parameters() if p.grad is None]
    close(found[1], found[0], 1e-4)


@torch.no_grad()
def copies_and_pickles(name):
    model = stir(small(name))
    x = images()
    expected = model(x)
    ema = ModelEmaV3(model, decay=0.0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), ema.module):  # noqa: S301 - our own bytes
        assert torch.equal(other(x), expected)
        for parameter in other.parameters():
            parameter.zero_()
        assert torch.equal(model(x), expected)
    # What the average reads is the model, hooks and all.
    ema.update(model)
    assert torch.equal(ema.module(x), expected)


@torch.inference_mode()
def saves_and_loads(name):
    blocks = list_blocks(small(name))
    # The smallest ResNet has one block a stage, which stays.
    drops = [block.name for block in blocks if block.droppable][:1]
    args = {"drops": drops, "pools": [blocks[-1].name], "pool_options": {"mode": "replace", "hidden": 3}}
    args["pools"] += [pooling.name for pooling in list_poolings(small(name))]
    model = stir(small(name, **args))
    x = images()
    with tempfile.TemporaryDirectory() as folder:
        save_for_hf(model, folder, safe_serialization=True)
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        config = json.loads(Path(folder, "config.json").read_text())
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert torch.equal(loaded(x), model(x))
    assert config["architecture"] == name
    assert config["model_args"]["pools"] == args["pools"]


@torch.inference_mode()
def keeps_formats(name):
    # Mapping networks with larger weights would make much of every rounding.
    model = stir(small(name), 0.1)
    x = images(2)
    expected = model(x)
    last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    close(last, expected, 1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x)
    assert low.isfinite().all()
    # As far off as bfloat16 makes the plain base.
    base = small(base_of(name))
    plain = base(x)
    with torch.autocast("cpu", torch.bfloat16):
        off = (base(x) - plain).norm() / plain.norm()
    assert (low - expected).norm() / expected.norm() <= 3 * off + 0.02


@torch.no_grad()
def compiles(name):
    model = stir(short(name))
    x = images()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    close(compiled(x), model(x), 1e-4)


@torch.no_grad()
def exports(name):
    model = stir(short(name))
    x = images(2)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    other = images(3)
    close(program.module()(other), model(other), 1e-4)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)


CHECKS = (
    preserves_the_function,
    pools_where_it_says,
    keeps_the_data_config,
    gives_features,
    takes_the_arguments_of_its_base,
    learns_in_groups,
    takes_images_of_other_sizes,
    checkpoints_gradients,
    copies_and_pickles,
    saves_and_loads,
    keeps_formats,
    compiles,
    exports,
)


# What each kind of block has to show at every commit, and what one model of each layout shows; the others are slow.
OF_EVERY_KIND = (preserves_the_function, pools_where_it_says, saves_and_loads, checkpoints_gradients)
OF_A_LAYOUT = (
    "cp_resnet50d",
    "cp_convnextv2_nano",
    "cp_swin_tiny_patch4_window7_224",
    "cp_vit_base_patch14_reg4_dinov2",
)
# Graphs take seconds each.
GRAPHS = (compiles, exports)
QUICKEST = ("cp_resnet18", "cp_convnextv2_nano", "cp_vit_small_patch16_224")


def cases():
    for check in CHECKS:
        fast = QUICKEST if check in GRAPHS else QUICK if check in OF_EVERY_KIND else OF_A_LAYOUT
        for name in QUICK:
            # Exporting traces as compiling does.
            if name in fast or check is not compiles:
                yield pytest.param(check, name, marks=() if name in fast else pytest.mark.slow)


@pytest.mark.parametrize(("check", "name"), cases(), ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_a_model(check, name):
    check(name)


# What depends on how many blocks of which kind there are; the others are done once for each set of kinds of modules.
OF_STRUCTURE = (pools_where_it_says, learns_in_groups)
# Done for every name, below.
OF_NAMES = (preserves_the_function, keeps_the_data_config)
WALKED = [check for check in CHECKS if check not in (*OF_NAMES, compiles)]


@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("check", WALKED, ids=lambda check: check.__name__)
def test_every_structure(check, family):
    for name in distinct(family, kinds=check not in OF_STRUCTURE):
        try:
            check(name)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error


@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_every_name(family):
    names = [name for name in NAMES if family_of(name) == family]
    assert names
    for name in names:
        for check in OF_NAMES:
            check(name)
