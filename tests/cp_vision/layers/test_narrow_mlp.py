"""MLPs of which some hidden units stay: those that count, in every layout, gated or not."""

import pytest
import timm
import torch
from small_models import images
from timm.layers import GluMlp, Mlp, SwiGLU, SwiGLUPacked
from torch import nn
from torchvision.models.vision_transformer import MLPBlock

from cp_vision import UserError, count_macs, fit_blocks, replace_blocks
from cp_vision.anatomy.mlp import mlp_layers
from cp_vision.fitting.units import UnitSums, keep_units
from cp_vision.layers.narrow_mlp import NarrowMlp

MLPS = {
    "timm": lambda: Mlp(6, 20),
    "conv": lambda: Mlp(6, 20, use_conv=True),
    "glu": lambda: GluMlp(6, 40),
    "swiglu packed": lambda: SwiGLUPacked(6, 40),
    "swiglu": lambda: SwiGLU(6, 20),
    "torchvision": lambda: MLPBlock(6, 20, 0.1),
    "no bias": lambda: Mlp(6, 20, bias=False),
}


def drawn(make):
    torch.manual_seed(0)
    module = make().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


@pytest.mark.parametrize("name", MLPS)
def test_all_units_are_the_mlp(name):
    """The layers that are read are those that work: with all units and the layer behind as it was, it is the MLP."""
    module = drawn(MLPS[name])
    layers = mlp_layers(module)
    stand_in = NarrowMlp(6, 20, layers.act, gated=len(layers.weights) > 1).eval()
    stand_in.keep(layers.weights, layers.biases, torch.arange(20))
    last = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)][-1]
    with torch.no_grad():
        stand_in.read_out.down[:, 6:] = layers.out
        if last.bias is not None:
            stand_in.read_out.bias.copy_(last.bias)
        x_BCHW = torch.randn(2, 6, 3, 4)
        wanted = module(x_BCHW) if name == "conv" else module(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for x in (x_BCHW, x_BCHW.to(memory_format=torch.channels_last)):
            assert torch.allclose(stand_in(x), wanted, atol=1e-5)
        (features,) = stand_in.features(x_BCHW)
        assert torch.allclose(stand_in.read_out(features).mT.reshape(2, 6, 3, 4), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "module", [nn.Identity(), Mlp(6, 20, norm_layer=nn.LayerNorm), nn.Sequential(nn.Linear(6, 6), nn.ReLU())], ids=str
)
def test_what_is_no_such_mlp(module):
    assert mlp_layers(module) is None


def test_units_that_count_are_kept():
    """Of units some are nearly linear in the tokens, some hardly matter behind, and four do neither."""
    torch.manual_seed(0)
    module = drawn(MLPS["timm"])
    with torch.no_grad():
        # Far from its kink, GELU is linear or nothing.
        module.fc1.bias[:8] = 50.0
        module.fc2.weight[:, 8:16] *= 1e-3
    sums = UnitSums(module)
    for _ in range(3):
        sums.add(torch.randn(200, 6))
    assert sorted(sums.importance().argsort(descending=True)[:4].tolist()) == [16, 17, 18, 19]
    stand_in = NarrowMlp(6, 4, module.act)
    keep_units(stand_in, sums)
    kept = {tuple(row) for row in stand_in.hidden[0].weight.tolist()}
    assert kept == {tuple(row) for row in module.fc1.weight[16:].tolist()}


CASES = {
    "test_vit": (
        {"img_size": 32, "depth": 3, "class_token": True, "reg_tokens": 1, "global_pool": "token"},
        "blocks.1.mlp",
    ),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)},
        "layers.1.blocks.0.mlp",
    ),
    "test_convnext": ({}, "stages.1.blocks.0.mlp"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_more_units_the_less_is_left(name):
    arguments, place = CASES[name]
    torch.manual_seed(0)
    teacher = timm.create_model(name, num_classes=5, **arguments).eval()
    for parameter in teacher.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    x = images(64, size=(32, 32))
    hidden = mlp_layers(teacher.get_submodule(place)).out.shape[1]
    left, costs = [], [count_macs(teacher, (3, 32, 32))]
    for units in (hidden // 4, hidden // 2):
        student = timm.create_model(name, num_classes=5, **arguments).eval()
        student.load_state_dict(teacher.state_dict())
        replace_blocks(student, [place], kind="narrow_mlp", units=units)
        (fit,) = fit_blocks(student, teacher, x).blocks
        left.append(fit.unexplained)
        costs.append(count_macs(student, (3, 32, 32)))
    plain = timm.create_model(name, num_classes=5, **arguments).eval()
    plain.load_state_dict(teacher.state_dict())
    replace_blocks(plain, [place], pool=False)
    (fit,) = fit_blocks(plain, teacher, x).blocks
    assert left[1] < left[0] < fit.unexplained < 1
    assert costs[1] < costs[2] < costs[0]


@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        ("blocks.1", {"units": 8}, "MLP half"),
        ("blocks.1.attn", {"units": 8}, "MLP half"),
        ("blocks.1.mlp", {"units": 0}, "units 0"),
        ("blocks.1.mlp", {"units": 10_000}, "at most"),
        ("blocks.1.mlp", {}, "units"),
    ],
)
def test_mistakes(place, options, message):
    model = timm.create_model("test_vit", img_size=32, depth=3)
    with pytest.raises(UserError, match=message) as error:
        replace_blocks(model, [place], kind="narrow_mlp", **options)
    assert "\n" not in str(error.value)
