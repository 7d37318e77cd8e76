"""Mistakes in replacing blocks are named, and leave the model as it was."""

import pytest
import torch
from portrait import portrait
from small_models import build_meta, images, small
from torch import nn

from cp_vision import ContextPoolBlock, UserError, drop_blocks, insert_pools, register_stand_in, replace_blocks

VIT, RESNET, SWIN = "test_vit", "resnet18", "swin_tiny_patch4_window7_224"


def prepared(base):
    """A model with a pool, a dropped block, a replaced block and a replaced half."""
    model = small(base)
    if base == VIT:
        insert_pools(drop_blocks(model, ["blocks.5"]), ["blocks.0"])
        replace_blocks(model, ["blocks.4", "blocks.3.mlp"])
    return model


@pytest.fixture(scope="module")
def models():
    return {base: prepared(base) for base in (VIT, RESNET, SWIN)}


# What the one line has to name: the bad value, and what would do where there is something close.
MISTAKES = [
    (VIT, ["blocks.9"], {}, r"'blocks\.9'.*'blocks\.1'"),
    (VIT, ["blocks.1.atn"], {}, r"'blocks\.1\.atn'.*'blocks\.1\.attn'"),
    (VIT, ["blocks.1:"], {}, r"'blocks\.1:'"),
    (VIT, [":blocks.1"], {}, r"':blocks\.1'"),
    (VIT, [""], {}, "''"),
    (VIT, ["blocks.1:blocks.2:blocks.3"], {}, r"'blocks\.2:blocks\.3'"),
    (VIT, ["blocks.1.attn:blocks.2.attn"], {}, r"'blocks\.1\.attn'"),
    (VIT, ["blocks.1.ls1"], {}, r"'blocks\.1\.ls1'"),
    (VIT, ["patch_embed"], {}, "'patch_embed'"),
    (VIT, ["blocks"], {}, "'blocks'"),
    (VIT, ["blocks.2:blocks.1"], {}, r"'blocks\.1'.*'blocks\.2'"),
    (VIT, ["blocks.1", "blocks.1"], {}, r"'blocks\.1'.*twice"),
    (VIT, ["blocks.1:blocks.2", "blocks.2"], {}, r"'blocks\.2'.*'blocks\.1:blocks\.2'"),
    (VIT, ["blocks.2", "blocks.1:blocks.2"], {}, r"'blocks\.1:blocks\.2'.*'blocks\.2'"),
    (VIT, ["blocks.1:blocks.2", "blocks.2.attn"], {}, r"'blocks\.2\.attn'.*'blocks\.1:blocks\.2'"),
    (VIT, ["blocks.2.attn", "blocks.1:blocks.2"], {}, r"'blocks\.1:blocks\.2'.*'blocks\.2\.attn'"),
    (VIT, ["blocks.5"], {}, r"'blocks\.5'.*dropped"),
    (VIT, ["blocks.0"], {}, r"'blocks\.0'.*pool"),
    (VIT, ["blocks.0:blocks.1"], {}, r"'blocks\.0'.*pool"),
    (VIT, ["blocks.4"], {}, r"'blocks\.4'.*replaced"),
    (VIT, ["blocks.4.attn"], {}, r"'blocks\.4\.attn'"),
    (VIT, ["blocks.3"], {}, r"'blocks\.3'.*half"),
    (VIT, ["blocks.2:blocks.3"], {}, r"half.*'blocks\.3'"),
    (VIT, ["blocks.3.mlp"], {}, r"'blocks\.3\.mlp'.*replaced"),
    (VIT, "blocks.1", {}, r"\['blocks\.1'\]"),
    (VIT, [3], {}, "3"),
    (VIT, None, {}, "None"),
    (VIT, {"blocks.1": 3}, {}, "3"),
    (VIT, {"blocks.1": None, "blocks.2": ["rank"]}, {}, r"\['rank'\]"),
    (VIT, ["blocks.1"], {"ranks": 3}, "'ranks'.*'rank'"),
    (VIT, {"blocks.1": {"ranks": 3}}, {}, "'ranks'.*'rank'"),
    (VIT, [], {"ranks": 3}, "'ranks'.*'rank'"),
    (VIT, ["blocks.1"], {"prefix": 3}, "'prefix'"),
    (VIT, ["blocks.1"], {"kind": "linear"}, "'linear'.*context_pool"),
    (VIT, ["blocks.1"], {"kind": 3}, "3"),
    (VIT, ["blocks.1"], {"rank": 0}, r"'blocks\.1'.*rank 0"),
    (VIT, ["blocks.1"], {"rank": 65}, "rank 65.*64"),
    (VIT, ["blocks.1"], {"rank": "3"}, "'3'"),
    (VIT, ["blocks.1"], {"share": 2}, "share 2"),
    (VIT, ["blocks.1"], {"share": True}, "True"),
    (VIT, ["blocks.1"], {"share": "half"}, "'half'"),
    (VIT, ["blocks.1"], {"share": None}, "None"),
    (VIT, ["blocks.1"], {"share": 1e-4}, r"least share is 0\.0"),
    (VIT, ["blocks.1"], {"share": 0.2, "rank": 3}, "rank or share"),
    (VIT, {"blocks.1": {"share": 0.2, "rank": 3}}, {}, "rank or share"),
    (VIT, ["blocks.1"], {"learned_weight": "x"}, "learned_weight 'x'"),
    (VIT, ["blocks.1"], {"support_range": 0.3}, "support_range.*learned"),
    (VIT, ["blocks.1"], {"learned_support": True, "support_range": -1}, "support_range -1"),
    (VIT, ["blocks.1"], {"supports": 0}, "supports 0"),
    (VIT, ["blocks.1"], {"pool": 1}, "pool 1"),
    # Dearer than a block: both figures are told.
    (VIT, ["blocks.1.attn"], {"rank": 64, "supports": 8}, r"'blocks\.1\.attn'.*[\d,]{7,} MACs.*[\d,]{7,}; "),
    (RESNET, ["layer1.0"], {}, r"'layer1\.0'.*layer1\.1"),
    (RESNET, ["layer2.0:layer2.1"], {}, r"'layer2\.0'"),
    (RESNET, ["layer2.1:layer3.1"], {}, r"'layer2\.1:layer3\.1'"),
    (RESNET, ["layer1.1.attn"], {}, r"'layer1\.1\.attn'"),
    (SWIN, ["layers.0.blocks.1:layers.1.blocks.0"], {}, r"layers\.0\.blocks.*layers\.1\.blocks"),
]


def check_untouched(model, act, message):
    x = images()
    with torch.no_grad():
        output, before = model(x), portrait(model)
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert portrait(model) == before
    with torch.no_grad():
        assert torch.equal(model(x), output)


@pytest.mark.parametrize(("base", "runs", "options", "message"), MISTAKES)
def test_wrong_replacements(base, runs, options, message, models):
    check_untouched(models[base], lambda: replace_blocks(models[base], runs, **options), message)


WRONG_AFTERWARDS = [
    (lambda model: drop_blocks(model, ["blocks.4"]), r"'blocks\.4'.*replaced"),
    (lambda model: drop_blocks(model, ["blocks.3"]), r"'blocks\.3'.*half"),
    (lambda model: insert_pools(model, ["blocks.4"]), r"'blocks\.4'.*replaced"),
]


@pytest.mark.parametrize(("act", "message"), WRONG_AFTERWARDS)
def test_other_surgery_where_something_was_replaced(act, message, models):
    check_untouched(models[VIT], lambda: act(models[VIT]), message)


@pytest.mark.parametrize(("base", "block"), [(VIT, "blocks.1"), (SWIN, "layers.1.blocks.0")])
def test_a_pool_before_attention_and_a_stand_in_for_it_exclude_each_other(base, block):
    pooled = insert_pools(small(base), [block], mode="pre_attn")
    check_untouched(pooled, lambda: replace_blocks(pooled, [f"{block}.attn"]), rf"'{block}\.attn'.*pre_attn")
    replaced = replace_blocks(small(base), [f"{block}.attn"])
    check_untouched(replaced, lambda: insert_pools(replaced, [block], mode="pre_attn"), f"'{block}'.*stand-in")


@pytest.mark.parametrize("runs", [[f"blocks.{i}" for i in range(6)], ["blocks.0:blocks.2", "blocks.3:blocks.5"]])
def test_all_blocks_replaced(runs):
    model = small(VIT)
    check_untouched(model, lambda: replace_blocks(model, runs), "all 6 blocks")
    replace_blocks(model, ["blocks.0:blocks.2"])
    check_untouched(model, lambda: replace_blocks(model, ["blocks.3:blocks.5"]), "all 3 blocks")


class Widening(nn.Module):
    """A block whose MLP half gives more channels than it takes, or is called twice."""

    def __init__(self, channels, twice):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.mlp = nn.Conv2d(channels, channels if twice else 2 * channels, 1)
        self.twice = twice

    def forward(self, x):
        y = self.mlp(self.norm(x))
        return x + (self.mlp(y) if self.twice else y[:, ::2])


class Widenings(nn.Module):
    def __init__(self, twice):
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 64, 96)}
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.Sequential(*(Widening(8, twice) for _ in range(3)))

    def forward(self, x):
        return self.blocks(self.stem(x)).mean((2, 3))


@pytest.mark.parametrize(("twice", "message"), [(False, r"\(8, 16, 24\).*\(16, 16, 24\)"), (True, "2 times")])
def test_halves_that_are_no_map_of_one_shape_called_once(twice, message):
    model = Widenings(twice).eval()
    check_untouched(model, lambda: replace_blocks(model, ["blocks.1.mlp"]), f"'blocks.1.mlp'.*{message}")
    replace_blocks(model, ["blocks.1"], rank=1)
    assert model(images()).shape == (1, 8)


def test_blocks_at_two_places_of_a_row():
    model = small(VIT)
    model.blocks[3] = model.blocks[1]
    with torch.no_grad():
        other = drop_blocks(small(VIT), ["blocks.1", "blocks.2", "blocks.3"])
        assert torch.allclose(replace_blocks(model, ["blocks.1:blocks.3"])(images()), other(images()), atol=1e-6)


def test_models_that_cant_be_changed():
    dropping = small(VIT, patch_drop_rate=0.5)
    check_untouched(dropping, lambda: replace_blocks(dropping, ["blocks.1"]), "patch_drop_rate")
    vgg = build_meta("vgg11", num_classes=5)
    with pytest.raises(UserError, match="VGG"):
        replace_blocks(vgg, ["features.1"])
    compiled = torch.compile(small(VIT))
    check_untouched(compiled._orig_mod, lambda: replace_blocks(compiled, ["blocks.1"]), r"torch\.compile")
    for wrong in (VIT, None):
        with pytest.raises(UserError, match=repr(wrong)):
            replace_blocks(wrong, ["blocks.1"])


@pytest.mark.parametrize(("kind", "make", "message"), [("", print, "''"), (3, print, "3"), ("mine", None, "'mine'")])
def test_wrong_kinds(kind, make, message):
    with pytest.raises(UserError, match=message):
        register_stand_in(kind, make)


def test_options_that_are_no_json():
    """Such a model couldn't be saved."""
    model = small(VIT)

    def make(modules, place, colours=None):
        return ContextPoolBlock(place.channels, rank=1, prefix=place.prefix)

    register_stand_in("odd", make, ["colours"])
    check_untouched(model, lambda: replace_blocks(model, ["blocks.1"], kind="odd", colours={3}), "JSON")
