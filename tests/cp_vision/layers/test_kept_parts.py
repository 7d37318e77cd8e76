"""Blocks of which a part stays: hidden units, heads, expanded channels; those that count, in every layout."""

import copy

import pytest
import timm
import torch
from slow_cases import slow_unless
from small_models import images
from timm.layers import Attention, GluMlp, Mlp, SwiGLU, SwiGLUPacked
from timm.models._efficientnet_blocks import InvertedResidual
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual as TorchvisionInvertedResidual
from torchvision.models.vision_transformer import MLPBlock, VisionTransformer

from cp_vision import UserError, count_macs, fit_blocks, replace_blocks
from cp_vision.anatomy.hidden import hidden_of
from cp_vision.anatomy.places import find_places
from cp_vision.fitting.kept import KeptSums

MODULES = {
    "timm": lambda: Mlp(6, 20),
    "conv": lambda: Mlp(6, 20, use_conv=True),
    "glu": lambda: GluMlp(6, 40),
    "swiglu packed": lambda: SwiGLUPacked(6, 40),
    "swiglu": lambda: SwiGLU(6, 20),
    "torchvision": lambda: MLPBlock(6, 20, 0.1),
    "no bias": lambda: Mlp(6, 20, bias=False),
    "attention": lambda: Attention(6, 3, qkv_bias=True),
    "attention with norms": lambda: Attention(6, 2, attn_head_dim=5, qk_norm=True, norm_layer=nn.LayerNorm),
    "torch's attention": lambda: nn.MultiheadAttention(6, 2, batch_first=True),
    "inverted residual": lambda: InvertedResidual(6, 6, dw_kernel_size=5, exp_ratio=3, act_layer=nn.ReLU6),
    "dilated": lambda: InvertedResidual(6, 6, dilation=2, exp_ratio=3),
    "torchvision's inverted residual": lambda: TorchvisionInvertedResidual(6, 6, 1, 4),
}


def drawn(make):
    torch.manual_seed(0)
    module = make().eval()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2)
        elif tensor.is_floating_point():
            nn.init.normal_(tensor, std=0.7)
    return module


@pytest.mark.parametrize("name", MODULES)
def test_the_middle_is_what_the_last_layer_reads(name):
    """Of all parts and of some in another order: with the others' outputs taken away, what is left is the module."""
    module = drawn(MODULES[name])
    hidden = hidden_of(module)
    x_BCHW = torch.randn(2, 6, 3, 4)
    with torch.no_grad():
        if name in ("conv", "inverted residual", "dilated", "torchvision's inverted residual"):
            run = module
        elif name == "torch's attention":
            run = lambda x: as_maps(module(*[x.flatten(2).mT] * 3)[0])  # noqa: E731
        elif name.startswith("attention"):
            run = lambda x: as_maps(module(x.flatten(2).mT))  # noqa: E731
        else:
            run = lambda x: module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # noqa: E731
        zero = run(x_BCHW) - read_out(hidden.kept, hidden.out, x_BCHW)
        # What is left is a bias, and x of what adds to it.
        residual = x_BCHW if "residual" in name or name == "dilated" else torch.zeros_like(x_BCHW)
        assert torch.allclose(zero - residual, (zero - residual)[:1, :, :1, :1].expand_as(zero), atol=1e-4)
        d = hidden.kept.size // hidden.parts
        order = torch.randperm(hidden.parts)
        columns = (d * order[:, None] + torch.arange(d)).flatten()
        shuffled = read_out(hidden.kept.some(order), hidden.out[:, columns], x_BCHW)
        assert torch.allclose(shuffled, read_out(hidden.kept, hidden.out, x_BCHW), atol=1e-5)
        one, last = hidden.kept.some(order[:1]), hidden.kept(x_BCHW.to(memory_format=torch.channels_last))[0]
        assert torch.allclose(one(x_BCHW)[0], last[:, columns[:d]], atol=1e-5)


def as_maps(x_BNC):
    return x_BNC.mT.unflatten(2, (3, 4))


def read_out(kept, out, x_BCHW):
    return torch.einsum("cm,bmhw->bchw", out, kept(x_BCHW)[0])


@pytest.mark.parametrize(
    "module",
    [
        nn.Identity(),
        Mlp(6, 20, norm_layer=nn.LayerNorm),
        nn.Sequential(nn.Linear(6, 6), nn.ReLU()),
        Attention(6, 2, scale_norm=True, norm_layer=nn.LayerNorm),
        Attention(6, 2, gated=True),
        nn.MultiheadAttention(6, 2),
        InvertedResidual(6, 6, exp_ratio=3, se_layer=timm.layers.SEModule),
        InvertedResidual(6, 8, exp_ratio=3),
        InvertedResidual(6, 6, exp_ratio=3, group_size=2),
        TorchvisionInvertedResidual(6, 6, 1, 1),
        timm.models.swin_transformer.WindowAttention(6, 2, window_size=4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_has_no_such_middle(module):
    assert hidden_of(module.eval()) is None


def test_units_that_count_are_kept():
    """Of units some are nearly linear in the tokens, some hardly matter behind, some are another's copy."""
    torch.manual_seed(0)
    module = drawn(MODULES["timm"])
    with torch.no_grad():
        # Far from its kink, GELU is linear or nothing.
        module.fc1.bias[:8] = 50.0
        module.fc2.weight[:, 8:14] *= 1e-3
        module.fc1.weight[14:16], module.fc1.bias[14:16] = module.fc1.weight[16:18], module.fc1.bias[16:18]
    sums = KeptSums(module)
    for _ in range(3):
        sums.add((torch.randn(40, 6, 5, 1),))
    best = sums.best(20).tolist()
    assert sorted(best) == list(range(20))
    kept = set(best[:4])
    assert {18, 19} < kept
    assert len(kept & {14, 16}) == len(kept & {15, 17}) == 1


def test_heads_are_chosen_for_what_they_add():
    """A head that is another's copy comes after one that says something else, and one that nobody reads comes last."""
    torch.manual_seed(0)
    module = drawn(lambda: Attention(8, 4, qkv_bias=True))
    with torch.no_grad():
        for part in (module.qkv.weight, module.qkv.bias):
            rows = part.unflatten(0, (3, 4, 2))
            rows[:, 1] = rows[:, 0]
        module.proj.weight[:, :4] *= 3
        module.proj.weight[:, 6:] *= 1e-4
    sums = KeptSums(module)
    sums.add((torch.randn(30, 8, 3, 3), torch.randn(30, 1, 8)))
    best = sums.best(4).tolist()
    assert best[:2] in ([0, 2], [1, 2])
    assert sorted(best) == [0, 1, 2, 3]


VIT = {"img_size": 32, "depth": 3, "class_token": True, "reg_tokens": 1, "global_pool": "token"}
CASES = {
    "mlp": ("test_vit", VIT, "blocks.1.mlp", "narrow_mlp", "units", (32, 96)),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)},
        *("layers.1.blocks.0.mlp", "narrow_mlp", "units", (32, 64)),
    ),
    "convnext": ("test_convnext", {}, "stages.1.blocks.0.mlp", "narrow_mlp", "units", (16, 32)),
    "heads": ("test_vit", {**VIT, "num_heads": 8}, "blocks.1.attn", "narrow_attention", "heads", (1, 2)),
    "heads and pool": ("test_vit", {**VIT, "num_heads": 8}, "blocks.1.attn", "narrow_attention", "heads", (1, 2)),
    "lite": ("efficientnet_lite0", {}, "blocks.2.1", "narrow_conv", "channels", (32, 96)),
}


@pytest.mark.parametrize("case", slow_unless({*CASES} - {"lite"}, CASES))
def test_the_more_stays_the_less_is_left(case):
    name, arguments, place, kind, part, counts = CASES[case]
    torch.manual_seed(0)
    teacher = timm.create_model(name, num_classes=5, **arguments).eval()
    for parameter in teacher.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    teacher.pretrained_cfg = {**teacher.pretrained_cfg, "input_size": (3, 32, 32)}
    x = images(64, size=(32, 32))
    left, costs = [], [count_macs(teacher, (3, 32, 32))]
    options = {"pool": True, "rank": 24} if "pool" in case else {}
    for count in counts:
        student = copy.deepcopy(teacher)
        replace_blocks(student, [place], kind=kind, **{part: count}, **options)
        (fit,) = fit_blocks(student, teacher, x).blocks
        left.append(fit.unexplained)
        costs.append(count_macs(student, (3, 32, 32)))
        (described,) = find_places(teacher, [place])
        own = described.count * student.get_submodule(place).stand_in.macs(described.grid)
        assert costs[-1] == costs[0] - described.macs + own
    plain = copy.deepcopy(teacher)
    replace_blocks(plain, [place], pool=False)
    (fit,) = fit_blocks(plain, teacher, x).blocks
    assert left[1] < left[0] < min(fit.unexplained, 1)
    assert costs[1] < costs[2] < costs[0]


def test_halves_of_torchvision():
    """Its attention gives a tuple."""
    torch.manual_seed(0)
    layers = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
    teacher = VisionTransformer(**layers).eval()
    teacher.pretrained_cfg = {"input_size": (3, 32, 32)}
    student, x = copy.deepcopy(teacher), images(32, size=(32, 32))
    half = "encoder.layers.encoder_layer_1."
    options = {f"{half}self_attention": {"kind": "narrow_attention", "heads": 2, "rank": 8}}
    replace_blocks(student, {**options, f"{half}mlp": {"kind": "narrow_mlp", "units": 24, "rank": 8}})
    assert all(block.unexplained < 1 for block in fit_blocks(student, teacher, x).blocks)
    assert student(x).shape == teacher(x).shape


@pytest.mark.parametrize(
    ("name", "place", "kind", "options", "message"),
    [
        ("test_vit", "blocks.1", "narrow_mlp", {"units": 8}, "MLP half"),
        ("test_vit", "blocks.1.attn", "narrow_mlp", {"units": 8}, "MLP half"),
        ("test_vit", "blocks.1.mlp", "narrow_attention", {"heads": 1}, "attention half"),
        ("test_vit", "blocks.1.mlp", "narrow_mlp", {"units": 0}, "units 0"),
        ("test_vit", "blocks.1.mlp", "narrow_mlp", {"units": True}, "units True"),
        ("test_vit", "blocks.1.mlp", "narrow_mlp", {"units": 10_000}, "from 1 to"),
        ("test_vit", "blocks.1.mlp", "narrow_mlp", {}, "units"),
        ("test_vit", "blocks.1.attn", "narrow_attention", {"heads": 64}, "from 1 to"),
        ("efficientnet_b0", "blocks.2.1", "narrow_conv", {"channels": 8}, "squeeze"),
        ("efficientnet_lite0", "blocks.3.1:blocks.3.2", "narrow_conv", {"channels": 8}, "inverted residual"),
        ("efficientnet_lite0", "blocks.2.1", "narrow_conv", {"units": 8}, "unknown"),
    ],
)
def test_mistakes(name, place, kind, options, message):
    model = timm.create_model(name, **({"img_size": 32, "depth": 3} if name == "test_vit" else {}))
    with pytest.raises(UserError, match=message) as error:
        replace_blocks(model, [place], kind=kind, **options)
    assert "\n" not in str(error.value)
