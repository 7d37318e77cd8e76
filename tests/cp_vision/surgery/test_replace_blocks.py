"""Stand-ins in the place of blocks and halves: where they act, what they leave alone, and what they cost."""

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from portrait import portrait
from small_models import close, images, is_added, short, small, stir
from timm.layers import resample_abs_pos_embed
from timm.models.metaformer import MetaFormer
from torch import nn

import cp_vision
from cp_vision import Snapshot, drop_blocks, find_sites, fit_blocks, insert_pools, register_stand_in, replace_blocks
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.anatomy.places import find_places
from cp_vision.anatomy.replacement import Replacement
from cp_vision.layers.read_out import ReadOut

SWIN, SWIN_2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"
REGISTERS, DEIT = "vit_base_patch14_reg4_dinov2", "deit_tiny_distilled_patch16_224"


def with_effect(model):
    """A model with weights in which no block is a no-op, and no head."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or parameter.abs().max() < 0.01:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def of_timm(name, **args):
    torch.manual_seed(0)
    return with_effect(timm.create_model(name, num_classes=5, **args))


def metaformer():
    torch.manual_seed(0)
    model = with_effect(MetaFormer(depths=(1, 1, 3, 1), dims=(16, 24, 32, 40), num_classes=5))
    model.pretrained_cfg = {"input_size": (3, 64, 96)}
    return model


def of_torchvision(model_class, *args):
    torch.manual_seed(0)
    return with_effect(model_class(*args, num_classes=5))


MODELS = {
    **{name: lambda name=name: small(name) for name in (REGISTERS, DEIT, "convnext_tiny", "resnet18", "regnety_002")},
    **{name: lambda name=name: short(name) for name in (SWIN, SWIN_2)},
    "torchvision resnet": lambda: of_torchvision(
        torchvision.models.ResNet, torchvision.models.resnet.BasicBlock, (1, 2, 1, 1)
    ),
    "torchvision vit": lambda: of_torchvision(torchvision.models.VisionTransformer, 64, 16, 4, 2, 32, 64),
    # Of unknown families: NCHW, NHWC, tokens with a class token, tokens with rotary embeddings.
    "poolformer": lambda: metaformer(),
    "mambaout": lambda: of_timm("test_mambaout"),
    "beit": lambda: of_timm("beit_base_patch16_224", depth=4, embed_dim=48, num_heads=4, img_size=64),
    "eva": lambda: of_timm("eva02_tiny_patch14_224", depth=3, embed_dim=48, num_heads=4, img_size=56),
}
SIZES = {"torchvision vit": (64, 64), "beit": (64, 64), "eva": (56, 56), "mambaout": (96, 96)}

# A run of as many blocks as its stage lets go.
RUNS = {
    REGISTERS: "blocks.1:blocks.2",
    DEIT: "blocks.0:blocks.2",
    SWIN: "layers.1.blocks.0:layers.1.blocks.1",
    SWIN_2: "layers.1.blocks.0:layers.1.blocks.1",
    "convnext_tiny": "stages.1.blocks.0:stages.1.blocks.1",
    "resnet18": "layer3.1",
    "regnety_002": "s3.b2:s3.b3",
    "torchvision resnet": "layer2.1",
    "torchvision vit": "encoder.layers.encoder_layer_1:encoder.layers.encoder_layer_2",
    "poolformer": "stages.2.blocks.1:stages.2.blocks.2",
    "mambaout": "stages.2.blocks.1:stages.2.blocks.2",
    "beit": "blocks.1:blocks.2",
    "eva": "blocks.1:blocks.2",
}
HALVES = [
    (REGISTERS, "blocks.1.attn"),
    (DEIT, "blocks.1.mlp"),
    (SWIN, "layers.0.blocks.0.attn"),
    # Shifted windows.
    (SWIN, "layers.0.blocks.1.attn"),
    (SWIN, "layers.1.blocks.1.mlp"),
    (SWIN_2, "layers.0.blocks.1.attn"),
    (SWIN_2, "layers.1.blocks.0.mlp"),
    ("convnext_tiny", "stages.1.blocks.0.mlp"),
    ("torchvision vit", "encoder.layers.encoder_layer_1.self_attention"),
    ("torchvision vit", "encoder.layers.encoder_layer_1.mlp"),
    ("beit", "blocks.1.attn"),
    ("eva", "blocks.1.mlp"),
]


def images_for(name, batch=1):
    return images(batch, size=SIZES.get(name, (64, 96)))


def blocks_of(model, run):
    first, _, last = run.partition(":")
    names = [block.name for block in list_blocks(model)]
    return names[names.index(first) : names.index(last or first) + 1]


def replaced(name, runs, **options):
    model = MODELS[name]()
    return stir(replace_blocks(model, runs, **options), 0.3)


@pytest.mark.parametrize("name", ["test_vit", "resnet18"])
@torch.inference_mode()
def test_replacing_nothing_changes_nothing(name):
    model = small(name)
    output, before = model(images()), portrait(model)
    assert replace_blocks(model, [], rank=3) is model
    assert replace_blocks(model, {}) is model
    assert portrait(model) == before
    assert torch.equal(model(images()), output)


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_a_new_run_is_like_dropped_blocks(name):
    base, x, run = MODELS[name](), images_for(name), RUNS[name]
    output, names = base(x), blocks_of(base, run)
    dropped = drop_blocks(copy.deepcopy(base), names)
    model = copy.deepcopy(base)
    assert replace_blocks(model, [run]) is model
    close(model(x), dropped(x))
    assert (model(x) - output).abs().max() > 1e-4
    # All other weights stay, under their keys.
    own = {key: value for key, value in model.state_dict().items() if not is_added(key)}
    assert list(own) == list(dropped.state_dict())
    assert all(torch.equal(value, base.state_dict()[key]) for key, value in own.items())
    first = names[0]
    added = {key for key in model.state_dict() if is_added(key)}
    assert added
    assert all(key.startswith(f"{first}.context_pool_block.") for key in added)
    assert [block.name for block in list_blocks(model)] == [b.name for b in list_blocks(base) if b.name not in names]
    # What it learns acts.
    assert (stir(model, 0.3)(x) - dropped(x)).abs().max() > 1e-4


class Nothing(nn.Module):
    """A half that adds nothing."""

    def __init__(self, half):
        super().__init__()
        self.inner = half

    def forward(self, *args, **kwargs):
        output = self.inner(*args, **kwargs)
        return (output[0] * 0, *output[1:]) if isinstance(output, tuple) else output * 0


@pytest.mark.parametrize(("name", "half"), HALVES)
@torch.inference_mode()
def test_a_new_half_adds_nothing(name, half):
    base, x = MODELS[name](), images_for(name, 2)
    model = replace_blocks(copy.deepcopy(base), [half])
    output = base(x)
    expected = copy.deepcopy(base)
    expected.set_submodule(half, Nothing(expected.get_submodule(half)))
    close(model(x), expected(x))
    assert (model(x) - output).abs().max() > 1e-4
    own = [key for key in model.state_dict() if not is_added(key)]
    assert own == [key for key in base.state_dict() if not key.startswith(f"{half}.")]
    assert {key for key in model.state_dict() if is_added(key)}
    assert all(key.startswith(f"{half}.context_pool_block.") for key in model.state_dict() if is_added(key))
    # The block is still one, to pool after or to look at.
    assert [b.name for b in list_blocks(model)] == [b.name for b in list_blocks(base)]
    assert (stir(model, 0.3)(x) - expected(x)).abs().max() > 1e-4


@pytest.mark.parametrize(("name", "half"), HALVES)
@torch.inference_mode()
def test_a_half_sees_the_grid_that_it_is_on(name, half):
    """What a stand-in gives for one image is what its map gives for the grid, token by token."""
    model, x = replaced(name, [half]), images_for(name, 2)
    seen = {}
    replacement = model.get_submodule(half)
    replacement.register_forward_hook(lambda m, args, output: seen.update(x=args[0], y=output))
    replacement.stand_in.register_forward_hook(lambda m, args, output: seen.update(maps=args, made=output))
    model(x)
    given, made = seen["maps"][0], seen["made"]
    made = made[0] if isinstance(made, tuple) else made
    output = seen["y"][0] if isinstance(seen["y"], tuple) else seen["y"]
    assert output.shape == seen["x"].shape
    for tensor, a_map in ((seen["x"], given), (output, made)):
        prefix = replacement.stand_in.prefix
        tokens = tensor.flatten(1, 2) if tensor.ndim == 4 else tensor[:, prefix:]
        assert torch.equal(a_map.flatten(2).mT, tokens)
    block = half.rpartition(".")[0]
    site = next(site for site in find_sites(MODELS[name](), (3, *x.shape[2:])) if site.name == block)
    windows = "windows" if ".attn" in half and "swin" in name else "map"
    assert given.shape[2:] == (site.grid if windows == "map" else (4, 4))


def test_channels_and_rows_of_one_number_are_told_apart():
    """A ConvNeXt's MLP takes channels last, its other layers first."""
    model = of_timm("convnext_tiny", depths=(1, 1, 1, 1), dims=(16, 24, 32, 40))
    for key in ("pretrained_cfg", "default_cfg"):
        setattr(model, key, {**model.pretrained_cfg, "input_size": (3, 64, 64)})
    replace_blocks(model, ["stages.0.blocks.0.mlp"])
    assert model.stages[0].blocks[0].mlp.layout == "NHWC"
    conv = of_timm("convnext_tiny", depths=(1, 1, 1, 1), dims=(16, 24, 32, 40), conv_mlp=True)
    conv.pretrained_cfg = model.pretrained_cfg
    replace_blocks(conv, ["stages.0.blocks.0.mlp"])
    assert conv.stages[0].blocks[0].mlp.layout == "NCHW"
    x = images(size=(64, 96))
    assert model(x).shape == conv(x).shape == (1, 5)


@pytest.mark.parametrize("name", [REGISTERS, SWIN, "convnext_tiny", "regnety_002", "torchvision vit", "beit"])
@torch.inference_mode()
def test_surgery_goes_on_after_a_replacement(name):
    """On the blocks that stay, as on a model where these were dropped."""
    model, run, x = MODELS[name](), RUNS[name], images_for(name)
    gone = set(blocks_of(model, run))
    other = drop_blocks(copy.deepcopy(model), blocks_of(model, run))
    replace_blocks(model, [run])
    free = [block.name for block in list_blocks(model) if block.droppable]
    assert not gone & {site.name for site in find_sites(model, (3, *x.shape[2:]))}
    assert len(free) >= 2
    for one in (model, other):
        insert_pools(one, free[:1])
        drop_blocks(one, free[1:2])
        if len(free) > 2:
            replace_blocks(one, free[2:3])
    close(model(x), other(x))
    sites = find_sites(model, (3, *x.shape[2:]))
    assert [site.name for site in sites] == [site.name for site in find_sites(other, (3, *x.shape[2:]))]
    assert stir(model, 0.3)(x).isfinite().all()


@torch.inference_mode()
def test_a_run_may_reach_over_a_dropped_block():
    model = small("test_vit")
    drop_blocks(model, ["blocks.2"])
    other = drop_blocks(copy.deepcopy(model), ["blocks.1", "blocks.3"])
    replace_blocks(model, ["blocks.1:blocks.3"])
    close(model(images()), other(images()))
    assert model._model_args["drops"] == ["blocks.2"]
    assert list(model._model_args["replaces"]) == ["blocks.1:blocks.3"]


@torch.inference_mode()
def test_pools_stand_beside_stand_ins():
    """After a block with a replaced half, and before the attention of one whose MLP is replaced."""
    for base, block in ((REGISTERS, "blocks.1"), (SWIN, "layers.0.blocks.1")):
        one, two = (small(base) for _ in range(2))
        insert_pools(replace_blocks(one, [f"{block}.mlp"]), [block], mode="pre_attn")
        replace_blocks(insert_pools(two, [block], mode="pre_attn"), [f"{block}.mlp"])
        stir(one)
        two.load_state_dict(one.state_dict())
        close(one(images()), two(images()))
        pooled = insert_pools(replace_blocks(small(base), [f"{block}.attn"]), [block])
        close(pooled(images()), replace_blocks(small(base), [f"{block}.attn"])(images()))
        assert (stir(pooled)(images()) - one(images())).abs().max() > 1e-4


# Name, options, and the share of what is replaced that the stand-in costs at most and, of a share, at least.
COSTS = [
    (REGISTERS, "blocks.1:blocks.2", {}, 0.0, 0.5),
    (REGISTERS, "blocks.1.mlp", {}, 0.0, 0.5),
    ("resnet18", "layer3.1", {}, 0.0, 0.5),
    ("convnext_tiny", "stages.1.blocks.0", {"supports": 4}, 0.0, 0.5),
    (SWIN, "layers.1.blocks.0", {"share": 0.2}, 0.17, 0.2),
    (SWIN, "layers.1.blocks.1.attn", {"share": 0.3}, 0.25, 0.3),
    (SWIN, "layers.1.blocks.1.mlp", {"share": 0.1}, 0.07, 0.1),
    ("torchvision vit", "encoder.layers.encoder_layer_1", {"share": 0.1, "pool": False}, 0.05, 0.1),
    (REGISTERS, "blocks.1", {"rank": 2}, 0.0, 0.1),
    (REGISTERS, "blocks.1", {"share": 0.3, "learned_support": True, "backend": "linear"}, 0.2, 0.3),
]


@pytest.mark.parametrize(("name", "run", "options", "least", "most"), COSTS)
def test_what_a_stand_in_costs(name, run, options, least, most):
    model = MODELS[name]()
    size = (3, *SIZES.get(name, (64, 96)))
    if hasattr(model, "pretrained_cfg"):
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": size}
    (place,) = find_places(model, [run])
    before = cp_vision.count_macs(model, size)
    replace_blocks(model, [run], **options)
    replacement = model.get_submodule(place.modules[0])
    macs = place.count * replacement.stand_in.macs(place.grid)
    assert least * place.macs <= macs <= most * place.macs
    assert cp_vision.count_macs(model, size) == pytest.approx(before - place.macs + macs, rel=1e-3)
    assert replacement.stand_in.rank == options.get("rank", replacement.stand_in.rank)


def test_options_of_one_go_over_those_of_all():
    runs = {"blocks.1": {}, "blocks.2": {"rank": 3}, "blocks.3.mlp": {"pool": False}, "blocks.4": {"share": 0.05}}
    model = replace_blocks(small("test_vit"), runs, share=0.2)
    ranks = [part.stand_in.rank for part in model.modules() if isinstance(part, Replacement)]
    assert ranks[1] == 3
    assert ranks[0] > ranks[3]
    assert [len(part.stand_in.pools) for part in model.modules() if isinstance(part, Replacement)] == [1, 1, 0, 1]
    noted = model._model_args["replaces"]
    assert noted == {
        "blocks.1": {"rank": ranks[0]},
        "blocks.2": {"rank": 3},
        "blocks.3.mlp": {"rank": ranks[2], "pool": False},
        "blocks.4": {"rank": ranks[3]},
    }


HEAD = {"kind": "narrow_attention", "heads": 1}
OTHER_SIZES = [
    # Runs and halves, pools among the options.
    ("vit_small_patch16_224", {"dynamic_img_size": True}, ["blocks.1:blocks.2", "blocks.0.attn", "blocks.3.mlp"]),
    (DEIT, {"dynamic_img_size": True}, ["blocks.1", "blocks.2.attn"]),
    (SWIN, {"window_size": 4}, ["layers.0.blocks.1", "layers.1.blocks.0.attn", "layers.1.blocks.1.mlp"]),
    (SWIN_2, {"window_size": 4}, ["layers.0.blocks.1.attn", "layers.1.blocks.0", "layers.1.blocks.1.mlp"]),
    (SWIN, {"window_size": 4}, {"layers.0.blocks.1.attn": HEAD, "layers.0.blocks.0.attn": {**HEAD, "pool": True}}),
    (SWIN_2, {"window_size": 4}, {"layers.0.blocks.1.attn": HEAD}),
    ("convnext_tiny", {}, ["stages.1.blocks.0:stages.1.blocks.1", "stages.2.blocks.1.mlp"]),
    ("resnet18", {}, ["layer3.1"]),
]


@pytest.mark.parametrize(("base", "args", "runs"), OTHER_SIZES)
@torch.inference_mode()
def test_other_image_sizes(base, args, runs):
    model = stir(replace_blocks(make(base, **args), runs), 0.3)
    seen = {}
    for path, part in model.named_modules():
        if isinstance(part, Replacement):
            part.stand_in.register_forward_hook(
                lambda m, args, output, path=path: seen.update({path: args[0].shape[2:]})
            )
    model(images())
    first = dict(seen)
    for size in ((96, 64), (128, 96)):
        if hasattr(model, "set_input_size") and "swin" in base:
            model.set_input_size(img_size=size, window_size=4)
        x = images(2, size=size)
        output = model(x)
        assert output.shape == (2, 5)
        assert all(grid != first[path] or "attn" in path for path, grid in seen.items())
        if args:
            # As a model that is made for this size, with the same weights.
            made = stir(replace_blocks(make(base, **{"img_size": size} | args), replacements(model)), 0.3)
            made.load_state_dict({**model.state_dict(), **mapped(model, made)}, strict=False)
            close(output, made(x), 1e-5)
        # Copies forget the last image, not the grid.
        close(copy.deepcopy(model)(x), output)


def make(base, **args):
    return (short if "swin" in base else small)(base, **args)


def mapped(model, made):
    """What is of the size of an image, as timm resizes it."""
    if "pos_embed" not in model.state_dict():
        return {}
    size = list(made.patch_embed.grid_size)
    return {"pos_embed": resample_abs_pos_embed(model.pos_embed, size, [4, 6], model.num_prefix_tokens)}


def replacements(model):
    return model._model_args["replaces"]


@pytest.mark.parametrize("options", [{}, {**HEAD, "pool": True}])
def test_windows_follow_the_size_of_windows(options):
    model = stir(replace_blocks(short(SWIN), ["layers.0.blocks.1.attn"], **options), 0.3)
    model.set_input_size(window_size=(2, 8))
    seen = []
    model.layers[0].blocks[1].attn.stand_in.register_forward_hook(lambda m, args, output: seen.append(args[0].shape))
    model(images())
    assert seen == [(16 * 24 // 16, 32, 2, 8)]


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        (REGISTERS, ["blocks.0", "blocks.1.attn", "blocks.2.mlp"]),
        (SWIN, ["layers.0.blocks.0", "layers.1.blocks.1.attn", "layers.1.blocks.1.mlp"]),
        (SWIN_2, {"layers.0.blocks.1.attn": HEAD}),
        ("convnext_tiny", ["stages.0.blocks.1", "stages.2.blocks.0.mlp"]),
        ("resnet18", {"layer1.1": {}, "layer3.1": {"kind": "narrow_conv", "channels": 8}}),
        (
            "torchvision vit",
            ["encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_2.self_attention"],
        ),
    ],
)
def test_formats_and_training(name, runs):
    model, x = replaced(name, runs), images_for(name, 2)
    with torch.no_grad():
        expected = model(x)
        last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        close(last, expected, 1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            low = model(x)
        assert (low - expected).norm() <= 0.1 * expected.norm()
    low = replace_blocks(MODELS[name]().bfloat16(), runs)
    assert {parameter.dtype for parameter in low.parameters()} == {torch.bfloat16}
    assert low(x.bfloat16()).dtype == torch.bfloat16
    model.train()
    assert all(part.training for part in model.modules())
    model(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for key, p in model.named_parameters() if is_added(key))
    # Those of a new one learn as well, the waist's other side and what is kept from the second step on.
    new = replace_blocks(MODELS[name]().train(), runs)
    new(x).square().sum().backward()
    gradients = {key: p.grad for key, p in new.named_parameters() if is_added(key)}
    assert all(gradient is not None for gradient in gradients.values())
    biases = {key: gradient for key, gradient in gradients.items() if key.endswith(".bias") and ".kept." not in key}
    assert all(gradient.abs().sum() > 0 for gradient in biases.values())


def test_a_stand_in_takes_device_and_mode_of_what_it_replaces():
    model = timm.create_model("test_vit").eval()
    model.blocks[1].double()
    model.blocks[2].to("meta").train()
    replace_blocks(model, ["blocks.0.attn", "blocks.1", "blocks.2"])
    made = [model.blocks[0].attn, model.blocks[1], model.blocks[2]]
    weights = [next(part.parameters()) for part in made]
    assert [weight.dtype for weight in weights] == [torch.float32, torch.float64, torch.float32]
    assert [weight.device.type for weight in weights] == ["cpu", "cpu", "meta"]
    assert [part.training for part in made] == [False, False, True]
    assert [part.stand_in.training for part in made] == [False, False, True]


COPIED = [
    (REGISTERS, ["blocks.1:blocks.2", "blocks.0.attn"]),
    (SWIN, ["layers.0.blocks.1.attn", "layers.0.blocks.1.mlp", "layers.1.blocks.0"]),
    (SWIN, {"layers.0.blocks.1.attn": HEAD}),
    ("resnet18", ["layer3.1"]),
    ("torchvision vit", ["encoder.layers.encoder_layer_1.self_attention", "encoder.layers.encoder_layer_2"]),
]


@pytest.mark.parametrize(("name", "runs"), COPIED)
@torch.no_grad()
def test_copies_and_pickles(name, runs):
    model, x = replaced(name, runs), images_for(name)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
        assert torch.equal(other(x), expected)
        for parameter in other.parameters():
            parameter.zero_()
        assert torch.equal(model(x), expected)


@torch.inference_mode()
def test_copies_of_a_map_of_any_size_are_on_their_own():
    for base, args in ((SWIN, {"strict_img_size": False}), ("vit_small_patch16_224", {"dynamic_img_size": True})):
        half = "layers.1.blocks.0.mlp" if base == SWIN else "blocks.1.mlp"
        model = stir(replace_blocks(make(base, **args), [half]), 0.3)
        other = copy.deepcopy(model)
        x, y = images(), images(size=(96, 128))
        expected = model(x), model(y)
        assert torch.equal(other(x), expected[0])
        model(y)
        assert torch.equal(other.get_submodule(half)(torch.zeros(1, *shape_of(other, half, x))), zero(other, half, x))


def shape_of(model, half, x):
    seen = []
    handle = model.get_submodule(half).register_forward_hook(lambda m, args, output: seen.append(args[0].shape[1:]))
    model(x)
    handle.remove()
    return tuple(seen[0])


def zero(model, half, x):
    """What a stand-in makes of zeros on the grid of an image."""
    shape = shape_of(model, half, x)
    return model.get_submodule(half)(torch.zeros(1, *shape))


SNAPSHOTS = [
    ("vit of any size", lambda: small("test_vit", dynamic_img_size=True), ["blocks.1:blocks.2", "blocks.3.attn"]),
    (SWIN, lambda: short(SWIN), ["layers.0.blocks.1.attn", "layers.1.blocks.0.mlp", "layers.1.blocks.1"]),
    ("resnet18", lambda: small("resnet18"), ["layer3.1"]),
    ("beit", MODELS["beit"], ["blocks.1", "blocks.2.mlp"]),
    ("torchvision vit", MODELS["torchvision vit"], ["encoder.layers.encoder_layer_1.self_attention"]),
]


@pytest.mark.parametrize(("name", "make", "runs"), SNAPSHOTS, ids=[row[0] for row in SNAPSHOTS])
@torch.inference_mode()
def test_a_snapshot_undoes_replacements(name, make, runs):
    model, x = make(), images_for(name)
    output, before = model(x), portrait(model)
    alive = [dict(vars(module)) for module in model.modules()]
    snapshot = Snapshot(model)
    outputs = []
    for _ in range(2):
        torch.manual_seed(1)
        replace_blocks(model, runs)
        outputs.append(stir(model, 0.3)(x))
        assert portrait(model) != before
        snapshot.restore()
        assert portrait(model) == before
        assert torch.equal(model(x), output)
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], output)
    assert alive


class Scale(nn.Module):
    """A stand-in that mixes channels, without a pool; it says its rank but takes none."""

    def __init__(self, place, width):
        super().__init__()
        self.prefix, self.residual, self.rank = place.prefix, place.residual, width
        self.maps = nn.ModuleList(ReadOut(place.channels, place.channels, width) for _ in range(1 + place.prefix))

    def forward(self, x_BCHW, x_BPC=None):
        features = self.features(x_BCHW, x_BPC)
        made = [one(part) for one, part in zip(self.maps, features, strict=True)]
        y_BCHW = made[0].mT.unflatten(2, x_BCHW.shape[2:]) + (x_BCHW if self.residual else 0)
        if x_BPC is None:
            return y_BCHW
        return y_BCHW, torch.cat(made[1:], 1) + (x_BPC if self.residual else 0)

    def features(self, x_BCHW, x_BPC=None):
        return [x_BCHW.flatten(2).mT, *([] if x_BPC is None else x_BPC.split(1, 1))]

    def read_outs(self):
        return list(self.maps)

    def macs(self, grid):
        channels = len(self.maps[0].bias)
        return (grid[0] * grid[1] + self.prefix) * channels * (2 * self.rank + 1)


@pytest.fixture
def kind():
    register_stand_in("scale", lambda modules, place, width=2: Scale(place, width), ["width"])
    return "scale"


@pytest.mark.parametrize("name", [REGISTERS, "resnet18"])
def test_a_kind_of_ones_own(name, kind, tmp_path):
    run = RUNS[name]
    base = MODELS[name]()
    model = replace_blocks(copy.deepcopy(base), {run: {"width": 3}}, kind=kind)
    first = run.partition(":")[0]
    assert isinstance(model.get_submodule(first).stand_in, Scale)
    assert replacements(model) == {run: {"kind": kind, "width": 3}}
    with torch.no_grad():
        close(model(images()), drop_blocks(copy.deepcopy(base), blocks_of(base, run))(images()))
    (block,) = fit_blocks(model, base, images(24)).blocks
    assert 0 < block.unexplained < 1
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(images()), model(images()))
    # Two kinds in one model.
    other = {REGISTERS: "blocks.0.mlp", "resnet18": "layer2.1"}[name]
    replace_blocks(model, [other])
    assert replacements(model)[other].keys() == {"rank"}
    with pytest.raises(cp_vision.UserError, match=r"'rank'.*width"):
        replace_blocks(copy.deepcopy(base), [run], kind=kind, rank=3)
