"""Blocks of which a part stays: hidden units, heads, expanded channels; those that count, in every layout."""

import copy
from functools import partial

import pytest
import timm
import torch
from slow_cases import slow_unless
from small_models import images
from timm.layers import Attention, GluMlp, Mlp, SwiGLU, SwiGLUPacked
from timm.models import swin_transformer, swin_transformer_v2
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from timm.models.regnet import Bottleneck as RegNetBottleneck
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn
from torchvision.models import regnet as torchvision_regnet
from torchvision.models import resnet as torchvision_resnet
from torchvision.models.mobilenetv2 import InvertedResidual as TorchvisionInvertedResidual
from torchvision.models.vision_transformer import MLPBlock, VisionTransformer

from cp_vision import UserError, count_macs, fit_blocks, replace_blocks
from cp_vision.anatomy.hidden import hidden_of
from cp_vision.anatomy.hidden_channels import last_act
from cp_vision.anatomy.places import find_places
from cp_vision.anatomy.replacement import Replacement
from cp_vision.fitting.batches import Batches
from cp_vision.fitting.capture import Capture
from cp_vision.fitting.fit_round import FitRound
from cp_vision.fitting.fitted_block import FittedBlock
from cp_vision.fitting.kept import KeptSums
from cp_vision.layers.context_pool_block import ContextPoolBlock
from cp_vision.layers.kept_channels import KeptChannels
from cp_vision.layers.kept_filters import KeptFilters

TORCHVISION_REGNET = (6, 6, 1, nn.BatchNorm2d, nn.SiLU, 2)
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
    "attention in windows": lambda: swin_transformer.WindowAttention(6, 3, head_dim=4, window_size=(3, 4)),
    "attention in windows, no bias": lambda: swin_transformer.WindowAttention(6, 3, window_size=(3, 4), qkv_bias=False),
    "attention by cosines": lambda: swin_transformer_v2.WindowAttention(6, (3, 4), 3),
    "attention by cosines, no bias": lambda: swin_transformer_v2.WindowAttention(6, (3, 4), 3, qkv_bias=False),
    "torch's attention": lambda: nn.MultiheadAttention(6, 2, batch_first=True),
    "inverted residual": lambda: InvertedResidual(6, 6, dw_kernel_size=5, exp_ratio=3, act_layer=nn.ReLU6),
    "dilated": lambda: InvertedResidual(6, 6, dilation=2, exp_ratio=3),
    "torchvision's inverted residual": lambda: TorchvisionInvertedResidual(6, 6, 1, 4),
    "grouped inverted residual": lambda: InvertedResidual(6, 6, exp_ratio=3, group_size=2),
    "squeezed inverted residual": lambda: InvertedResidual(6, 6, exp_ratio=3, se_layer=SqueezeExcite),
    "regnet with squeeze": lambda: RegNetBottleneck(6, 6, group_size=2),
    "torchvision's regnet with squeeze": lambda: torchvision_regnet.ResBottleneckBlock(
        *TORCHVISION_REGNET, se_ratio=0.5
    ),
    "basic": lambda: BasicBlock(6, 6, act_layer=nn.SiLU),
    "dilated basic": lambda: BasicBlock(6, 6, dilation=2, first_dilation=1),
    "torchvision's basic": lambda: torchvision_resnet.BasicBlock(6, 6),
    "bottleneck": lambda: Bottleneck(12, 3, base_width=128),
    "grouped bottleneck": lambda: Bottleneck(12, 3, cardinality=3, base_width=64),
    "torchvision's bottleneck": lambda: torchvision_resnet.Bottleneck(12, 3, base_width=128),
    "regnet": lambda: RegNetBottleneck(6, 6, group_size=2, se_ratio=0, downsample="avg"),
    "linear regnet": lambda: RegNetBottleneck(6, 6, group_size=6, se_ratio=0, downsample="", linear_out=True),
    "torchvision's regnet": lambda: torchvision_regnet.ResBottleneckBlock(*TORCHVISION_REGNET),
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
    is_block = isinstance(hidden.kept, KeptChannels | KeptFilters)
    x_BCHW = torch.randn(2, len(hidden.out), 3, 4)
    with torch.no_grad():
        if is_block:
            run = partial(before_its_last_activation, module)
        elif name == "conv":
            run = module
        elif name == "torch's attention":
            run = lambda x: as_maps(module(*[x.flatten(2).mT] * 3)[0])  # noqa: E731
        elif name.startswith("attention"):
            run = lambda x: as_maps(module(x.flatten(2).mT))  # noqa: E731
        else:
            run = lambda x: module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # noqa: E731
        zero = run(x_BCHW) - read_out(hidden.kept, hidden.out, x_BCHW)
        # What is left is a bias, and x of what adds to it.
        residual = x_BCHW if is_block else torch.zeros_like(x_BCHW)
        assert torch.allclose(zero - residual, (zero - residual)[:1, :, :1, :1].expand_as(zero), atol=1e-4)
        d = hidden.kept.size // hidden.parts
        order = torch.randperm(hidden.parts)
        columns = (d * order[:, None] + torch.arange(d)).flatten()
        shuffled = read_out(hidden.kept.some(order), hidden.out[:, columns], x_BCHW)
        assert torch.allclose(shuffled, read_out(hidden.kept, hidden.out, x_BCHW), atol=1e-5)
        if getattr(hidden.kept, "is_dense", False) or getattr(hidden.kept, "gate", None) is not None:
            # A channel alone isn't what it was.
            return
        one, last = hidden.kept.some(order[:1]), read(hidden.kept, x_BCHW.to(memory_format=torch.channels_last))
        assert torch.allclose(read(one, x_BCHW), last[:, columns[:d]], atol=1e-5)


def before_its_last_activation(module, x_BCHW):
    if last_act(module) is None:
        return module(x_BCHW)
    with Capture(nn.Sequential(module), sums=["0"]) as seen:
        seen.run(x_BCHW)
    assert torch.equal(last_act(module)(seen.sums["0"].clone()), module(x_BCHW.clone()))
    return seen.sums["0"]


def as_maps(x_BNC):
    return x_BNC.mT.unflatten(2, (3, 4))


def read(kept, x_BCHW):
    """What is read of each pixel."""
    h_BmHW = kept(x_BCHW)[0]
    return kept.neighbours(h_BmHW) if isinstance(kept, KeptFilters) else h_BmHW


def read_out(kept, out, x_BCHW):
    return torch.einsum("cm,bmhw->bchw", out, read(kept, x_BCHW))


@pytest.mark.parametrize(
    "module",
    [
        nn.Identity(),
        Mlp(6, 20, norm_layer=nn.LayerNorm),
        nn.Sequential(nn.Linear(6, 6), nn.ReLU()),
        Attention(6, 2, scale_norm=True, norm_layer=nn.LayerNorm),
        Attention(6, 2, gated=True),
        nn.MultiheadAttention(6, 2),
        InvertedResidual(6, 6, exp_ratio=3, se_layer=timm.layers.EcaModule),
        InvertedResidual(6, 6, exp_ratio=3, se_layer=partial(timm.layers.SEModule, norm_layer=nn.BatchNorm2d)),
        InvertedResidual(6, 8, exp_ratio=3),
        BasicBlock(6, 6, attn_layer=timm.layers.SEModule),
        BasicBlock(6, 8, downsample=nn.Conv2d(6, 8, 1)),
        Bottleneck(8, 2, stride=2, downsample=nn.AvgPool2d(2)),
        Bottleneck(8, 2, norm_layer=nn.InstanceNorm2d),
        Bottleneck(8, 2, act_layer=timm.layers.PReLU),
        RegNetBottleneck(6, 6, se_ratio=0, dilation=(1, 2), downsample=""),
        TorchvisionInvertedResidual(6, 6, 1, 1),
        timm.models.beit.Attention(6, 2, window_size=(4, 4)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_has_no_such_middle(module):
    assert hidden_of(module.eval()) is None


def test_squeezes_that_stay_make_up_for_those_that_go():
    """Channels that go are others' copies: what the squeeze read of them it reads twice from these."""
    module = drawn(lambda: InvertedResidual(6, 6, exp_ratio=2, se_layer=SqueezeExcite))
    half = len(module.bn1.weight) // 2
    with torch.no_grad():
        for layer, norm in ((module.conv_pw, module.bn1), (module.conv_dw, module.bn2)):
            for part in (layer.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
                part[half:] = part[:half]
    hidden = hidden_of(module)
    sums = KeptSums(module)
    sums.add((torch.randn(200, 6, 3, 4),))
    x_BCHW, which = torch.randn(2, 6, 3, 4), torch.arange(half)
    with torch.no_grad():
        wanted = hidden.kept(x_BCHW)[0][:, :half]
        error, rough = (
            (one(x_BCHW)[0] - wanted).norm() / wanted.norm() for one in (sums.some(which), hidden.kept.some(which))
        )
    assert error < rough / 4


@pytest.mark.parametrize("kind", [swin_transformer.SwinTransformerBlock, swin_transformer_v2.SwinTransformerV2Block])
def test_windows_that_are_shifted_keep_their_masks(kind):
    block = drawn(lambda: kind(6, (8, 12), 3, window_size=4, shift_size=2))
    # Of each image six windows.
    x_BNC = torch.randn(12, 16, 6)
    hidden = hidden_of(block.attn, block)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        wanted = block.attn(x_BNC, mask=block.attn_mask)
        h_BNm = hidden.kept.some(order).of_tokens(x_BNC).unflatten(2, (3, -1))[..., order.argsort(), :].flatten(2)
        assert torch.allclose(h_BNm @ hidden.out.mT + block.attn.proj.bias, wanted, atol=1e-4)
        assert not torch.allclose(block.attn(x_BNC), wanted, atol=0.1)
        # As many images as there are.
        first = hidden.kept.of_tokens(x_BNC[:6])
    assert torch.allclose(first, hidden.kept.of_tokens(x_BNC)[:6], atol=1e-5)


@pytest.mark.parametrize(
    "name", [name for name in MODULES if "basic" in name or "bottleneck" in name or "net" in name or "squeeze" in name]
)
def test_all_of_the_middle_is_the_block(name):
    """A fit finds what reads the middle, and what comes behind the sum."""
    block = drawn(MODULES[name])
    hidden = hidden_of(block)
    channels = len(hidden.out)
    stand_in = ContextPoolBlock(channels, pool=False, kept=hidden.kept.some(torch.arange(hidden.parts)))
    replacement = Replacement("0", {}, stand_in, "NCHW", act=last_act(block))
    model = nn.Sequential(block)
    with torch.no_grad():
        fit = FitRound([FittedBlock("0", replacement)], model, model, Batches(torch.randn(40, channels, 6, 5), model))
        fit.fit(0, (), lambda: None)
        x_BCHW = torch.randn(3, channels, 6, 5)
        assert torch.allclose(replacement(x_BCHW), block(x_BCHW.clone()), rtol=1e-3, atol=1e-3)


def test_channels_that_stay_make_up_for_those_that_go():
    """Of the six channels before the filters three are others' copies, and one is twice another and a bit more."""
    block = drawn(lambda: Bottleneck(12, 3, base_width=128))
    with torch.no_grad():
        # Running statistics go into what each channel is.
        block.bn1.running_mean.zero_()
        block.bn1.running_var.fill_(1)
        for to, source, factor in ((3, 0, 1), (4, 1, 1), (5, 2, 2)):
            for part in (block.conv1.weight, block.bn1.bias, block.bn1.weight):
                part[to] = part[source] * (factor if part is not block.bn1.weight else 1)
    hidden = hidden_of(block)
    sums = KeptSums(block)
    sums.add((torch.randn(40, 12, 6, 5),))
    x_BCHW, behind = torch.randn(2, 12, 6, 5), torch.tensor([4, 1, 2])
    wanted = hidden.kept(x_BCHW)[0][:, behind]
    narrow = sums.some(behind)
    assert narrow.macs((6, 5), 0) < hidden.kept.macs((6, 5), 0) / 2
    error, rough = ((one(x_BCHW)[0] - wanted).norm() / wanted.norm() for one in (narrow, hidden.kept.some(behind)))
    assert error < 0.1 < rough


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


def test_thin_heads_are_the_heads_where_these_need_no_more():
    """Queries, keys and values of less than half the channels' rank, in a basis of their own, with biases."""
    torch.manual_seed(0)
    module = drawn(lambda: Attention(16, 2, qkv_bias=True))
    with torch.no_grad():
        for part in (module.qkv.weight, module.qkv.bias):
            for rows in part.unflatten(0, (6, 8)):
                rows[:] = torch.linalg.qr(torch.randn(8, 3))[0] @ rows[:3]
    sums, maps = KeptSums(module), (torch.randn(30, 16, 4, 3), torch.randn(30, 1, 16))
    sums.add(maps)
    made = sums.thin(torch.arange(2), 4)
    # Queries of logits that differ by what is the same for all keys; values in another basis.
    tokens = torch.cat([maps[1], maps[0].flatten(2).mT], 1)
    wanted, found = sums.hidden.kept.of_tokens(tokens).flatten(0, 1), made.of_tokens(tokens).flatten(0, 1)
    for one, other in zip(wanted.split(8, 1), found.split(4, 1), strict=True):
        solved = torch.linalg.lstsq(other.double(), one.double()).solution
        torch.testing.assert_close(other.double() @ solved, one.double(), atol=1e-4, rtol=1e-4)


VIT = {"img_size": 32, "depth": 3, "class_token": True, "reg_tokens": 1, "global_pool": "token"}
RESNET = {"layers": [2, 1, 1, 1], "channels": 4 * [16], "stem_type": "deep", "stem_width": 4}
SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 32, "depths": (2, 1), "num_heads": (8, 2)}
GROUPS = {"cardinality": 4, "base_width": 64}
CASES = {
    "mlp": ("test_vit", VIT, "blocks.1.mlp", "narrow_mlp", "units", (32, 96)),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)},
        *("layers.1.blocks.0.mlp", "narrow_mlp", "units", (32, 64)),
    ),
    "swin's heads": (
        "swin_tiny_patch4_window7_224",
        SWIN,
        "layers.0.blocks.1.attn",
        "narrow_attention",
        "heads",
        (1, 2),
    ),
    "cosines": ("swinv2_tiny_window8_256", SWIN, "layers.0.blocks.1.attn", "narrow_attention", "heads", (1, 2)),
    "cosines and pool": (
        "swinv2_tiny_window8_256",
        SWIN,
        "layers.0.blocks.0.attn",
        "narrow_attention",
        "heads",
        (1, 2),
    ),
    "convnext": ("test_convnext", {}, "stages.1.blocks.0.mlp", "narrow_mlp", "units", (16, 32)),
    "heads": ("test_vit", {**VIT, "num_heads": 8}, "blocks.1.attn", "narrow_attention", "heads", (1, 2)),
    "heads and pool": ("test_vit", {**VIT, "num_heads": 8}, "blocks.1.attn", "narrow_attention", "heads", (1, 2)),
    "thin heads": ("test_vit", VIT, "blocks.1.attn", "narrow_attention", "head_channels", (8, 16)),
    "thin heads and pool": ("test_vit", VIT, "blocks.1.attn", "narrow_attention", "head_channels", (8, 16)),
    "thin heads alone": ("test_vit", VIT, "blocks.1.attn", "narrow_attention", "head_channels", (8, 16)),
    "mlp alone": ("test_vit", VIT, "blocks.1.mlp", "narrow_mlp", "units", (32, 96)),
    "swin's thin heads": (
        "swin_tiny_patch4_window7_224",
        {**SWIN, "num_heads": (2, 2)},
        "layers.0.blocks.1.attn",
        "narrow_attention",
        "head_channels",
        (4, 8),
    ),
    "squeeze": ("mobilenetv3_small_050", {}, "blocks.2.1", "narrow_conv", "channels", (16, 48)),
    "lite": ("efficientnet_lite0", {}, "blocks.2.1", "narrow_conv", "channels", (32, 96)),
    "basic": ("resnet18", RESNET, "layer1.1", "narrow_conv", "channels", (4, 8)),
    "basic and pool": ("resnet18", RESNET, "layer1.1", "narrow_conv", "channels", (4, 8)),
    "bottleneck": ("resnet50", RESNET, "layer1.1", "narrow_conv", "channels", (4, 8)),
    "groups": ("resnext50_32x4d", {**RESNET, **GROUPS}, "layer1.1", "narrow_conv", "channels", (16, 32)),
}


@pytest.mark.parametrize("case", slow_unless({*CASES} - {"lite"}, CASES))
def test_the_more_stays_the_less_is_left(case):
    name, arguments, place, kind, part, counts = CASES[case]
    torch.manual_seed(0)
    teacher = timm.create_model(name, num_classes=5, **arguments).eval()
    for parameter in teacher.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    teacher.pretrained_cfg = {**teacher.pretrained_cfg, "input_size": (3, 32, 32)}
    x = images(64, size=(32, 32))
    left, costs = [], [count_macs(teacher, (3, 32, 32))]
    options = {"pool": True, "rank": 12} if "pool" in case else {}
    options |= {"heads": 2} if part == "head_channels" else {}
    options |= {"map": False} if "alone" in case else {}
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
    # Those that stay alone have no map beside them.
    assert left[1] < left[0] < (1 if "alone" in case else min(fit.unexplained, 1))
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
        *(
            ("test_vit", "blocks.1.attn", "narrow_attention", {"heads": 1, "head_channels": count}, "below the 32")
            for count in (0, 32, True, 2.0)
        ),
        ("test_vit", "blocks.1.mlp", "narrow_mlp", {"units": 8, "head_channels": 4}, "unknown"),
        ("test_vit", "blocks.1.mlp", "narrow_mlp", {"units": 8, "map": False, "pool": True}, "map=False"),
        ("test_vit", "blocks.1.mlp", "narrow_mlp", {"units": 8, "map": 1}, "map 1"),
        (
            "swinv2_tiny_window8_256",
            "layers.0.blocks.0.attn",
            "narrow_attention",
            {"heads": 1, "head_channels": 4},
            "can't be thinned",
        ),
        (
            "swin_tiny_patch4_window7_224",
            "layers.0.blocks.1.attn",
            "narrow_attention",
            {"heads": 1},
            "anew for each image",
        ),
        ("beit_base_patch16_224", "blocks.1.attn", "narrow_attention", {"heads": 1}, "positions but for Swin's"),
        ("seresnet18", "layer1.1", "narrow_conv", {"channels": 8}, "inverted residual"),
        ("resnext50_32x4d", "layer1.1", "narrow_conv", {"channels": 6}, "from 4 to 128.*whole groups of 4"),
        ("resnext50_32x4d", "layer1.1", "narrow_conv", {"channels": 8, "rank": 0}, "rank 0"),
        ("resnet18", "layer1.1", "narrow_conv", {"channels": 64}, "costs"),
        ("wide_resnet50_2", "layer4.1", "narrow_conv", {"channels": 64}, "9,216 values"),
        ("efficientnet_lite0", "blocks.3.1:blocks.3.2", "narrow_conv", {"channels": 8}, "inverted residual"),
        ("efficientnet_lite0", "blocks.2.1", "narrow_conv", {"units": 8}, "unknown"),
    ],
)
def test_mistakes(name, place, kind, options, message):
    arguments = {
        "test_vit": {"img_size": 32, "depth": 3},
        "wide_resnet50_2": {"layers": (1, 1, 1, 2)},
        "beit_base_patch16_224": {"img_size": 32, "depth": 3, "embed_dim": 48, "num_heads": 4},
        "swin_tiny_patch4_window7_224": {
            "strict_img_size": False,
            "depths": (2, 2),
            "embed_dim": 24,
            "num_heads": (2, 4),
        },
    }
    model = timm.create_model(name, **arguments.get(name, {}))
    with pytest.raises(UserError, match=message) as error:
        replace_blocks(model, [place], kind=kind, **options)
    assert "\n" not in str(error.value)
