"""Fitting stand-ins to a teacher: what is such a map is found again, whatever the layout."""

import copy
import math

import pytest
import torch
from small_models import close, images, small
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from cp_vision import UserError, drop_blocks, fit_blocks, replace_blocks
from cp_vision.fitting.recalibrate import norm_statistics, recalibrate_norms

# Base, what is replaced, and options: tokens with prefix, NHWC, NCHW, windows, a row of tokens of a map, a tuple.
PLACES = [
    ("vit_base_patch14_reg4_dinov2", "blocks.1:blocks.2", {}),
    ("vit_base_patch14_reg4_dinov2", "blocks.1.attn", {"rank": 6}),
    ("deit3_small_patch16_224", "blocks.1.mlp", {"pool": False}),
    ("swin_tiny_patch4_window7_224", "layers.1.blocks.0:layers.1.blocks.1", {"supports": 2}),
    ("swin_tiny_patch4_window7_224", "layers.1.blocks.1.attn", {}),
    ("swin_tiny_patch4_window7_224", "layers.1.blocks.1.mlp", {"rank": 9}),
    ("convnext_tiny", "stages.1.blocks.0:stages.1.blocks.1", {}),
    ("resnet18", "layer2.1", {"rank": 7}),
    ("regnety_002", "s3.b2", {"pool": False, "rank": 5}),
]


LEARNED = {"learned_weight": True, "learned_support": True}


class Stranger(nn.Module):
    """A module of somebody else's that is such a map."""

    def __init__(self, replacement):
        super().__init__()
        self.inner = replacement

    def forward(self, x, *args, **kwargs):
        return self.inner(x)

    def set_input_size(self, *args, **kwargs):
        pass


def pictures(count=48):
    generator = torch.Generator().manual_seed(3)
    # Differences between images beside those within.
    coarse = (torch.randn(count, 3, *size, generator=generator) for size in ((1, 1), (2, 3), (16, 24)))
    return sum(nn.functional.interpolate(part, size=(64, 96)) for part in coarse)


def student_and_teacher(base, name, options, fixed=True):
    """A student with a stand-in, and its teacher: the base, or one where what is replaced is such a map."""
    student = small(base)
    teacher = copy.deepcopy(student)
    replace_blocks(student, [name], **options)
    if fixed:
        first, _, last = name.partition(":")
        made = copy.deepcopy(student)
        replacement = made.get_submodule(first)
        generator = torch.Generator().manual_seed(5)
        for parameter in replacement.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        # Supports that a fit may start from.
        for pool, sigma in zip(replacement.stand_in.pools, (0.5, 1.2), strict=False):
            pool.start_at(sigma)
        teacher = made
        teacher.set_submodule(first, Stranger(replacement))
        if last:
            teacher.set_submodule(last, nn.Sequential())
            teacher.get_submodule(last).forward = lambda x, *args, **kwargs: x
    return student, teacher


@pytest.mark.parametrize(("base", "name", "options"), PLACES)
@pytest.mark.parametrize("inputs", ["student", "teacher"])
def test_what_is_such_a_map_is_found_again(base, name, options, inputs):
    student, teacher = student_and_teacher(base, name, options)
    # Of a class token each image has one, with twice as many features as channels.
    x = pictures(192)
    done = fit_blocks(student, teacher, x, inputs=inputs, recalibrate=False)
    (block,) = done.blocks
    assert block.name == name
    assert block.unexplained < 1e-6
    with torch.no_grad():
        close(student(x[:4]), teacher(x[:4]), 1e-4)


def fitted(images, **options):
    student, teacher = student_and_teacher("test_vit", "blocks.1:blocks.2", {}, fixed=False)
    replace_blocks(student, ["blocks.3.attn"])
    result = fit_blocks(student, teacher, images, **options)
    return student.state_dict(), result


def test_the_same_images_give_the_same_fit():
    x = pictures()
    one, result = fitted(x)
    again, same = fitted(x)
    assert result == same
    assert all(torch.equal(one[key], again[key]) for key in one)
    labels = torch.zeros(len(x))
    for batches in (list(x.split(32)), DataLoader(TensorDataset(x, labels), 32), [(x[:32], "any"), [x[32:], "thing"]]):
        other, _ = fitted(batches)
        assert all(torch.equal(one[key], other[key]) for key in one)
    # Other batches are other sums, and to the last digits the same ones.
    other, result = fitted(list(x.split(5)))
    assert result.images == 48
    assert [block.supports for block in result.blocks] == [block.supports for block in same.blocks]
    for block, before in zip(result.blocks, same.blocks, strict=True):
        assert block.unexplained == pytest.approx(before.unexplained, rel=1e-3)


def test_from_input_to_output_each_mends_what_came_before():
    """Fitted on what the stand-ins before it give, the last block of a row comes nearer to the teacher's map."""
    base = small("test_vit")
    x = pictures(96)
    seen = {}
    with torch.no_grad():
        wanted = base.forward_features(x)
    for inputs in ("student", "teacher"):
        student = replace_blocks(copy.deepcopy(base), ["blocks.1", "blocks.2", "blocks.3", "blocks.4"], share=0.02)
        names = [block.name for block in fit_blocks(student, base, x, inputs=inputs).blocks]
        assert names == ["blocks.1", "blocks.2", "blocks.3", "blocks.4"]
        with torch.no_grad():
            seen[inputs] = float((student.forward_features(x) - wanted).square().sum())
    assert seen["student"] < seen["teacher"]


def test_local_steps_learn_weights_and_supports():
    """A teacher that pools with learned weights and supports is explained better by a student that learns them."""
    student, _ = student_and_teacher("test_vit", "blocks.2", LEARNED | {"hidden": 4}, fixed=False)
    base = small("test_vit")
    replacement = copy.deepcopy(student.get_submodule("blocks.2"))
    generator = torch.Generator().manual_seed(5)
    for key, parameter in replacement.named_parameters():
        scale = 1.5 if "pools" in key else 0.3
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    base.set_submodule("blocks.2", Stranger(replacement))
    x = pictures(64)
    plain = fit_blocks(student, base, x).blocks[0]
    trained = fit_blocks(student, base, x, steps=150).blocks[0]
    assert trained.unexplained < 0.95 * plain.unexplained
    mapping = student.get_submodule("blocks.2").stand_in.pools[0].mapping
    assert mapping[-1].weight.abs().sum() > 0


def test_norms_behind_the_first_stand_in_are_recalibrated():
    base, x = small("resnet18"), pictures(64)
    update_bn([x], base)
    base.eval()
    student = replace_blocks(copy.deepcopy(base), ["layer2.1"], pool=False, rank=1)
    before = copy.deepcopy(student.state_dict())
    result = fit_blocks(student, base, [x])
    after = student.state_dict()
    changed = {key for key in after if "running" in key and not torch.equal(before[key], after[key])}
    behind = {key for key in after if "running" in key and key.startswith(("layer3", "layer4"))}
    assert changed == behind
    assert result.norms == len(behind) // 2
    seen = []
    student.get_submodule("layer3.0.bn1").register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    with torch.no_grad():
        student(x)
    torch.testing.assert_close(
        after["layer3.0.bn1.running_mean"], torch.cat(seen).mean((0, 2, 3)), rtol=1e-3, atol=1e-4
    )
    assert not any(part.training for part in student.modules())
    unmoved = copy.deepcopy(base)
    replace_blocks(unmoved, ["layer2.1"])
    assert fit_blocks(unmoved, base, x, recalibrate=False).norms == 0


@torch.no_grad()
def test_norms_of_a_model_that_does_the_same_stay_as_they_are():
    """However few the images are, and whatever the base's statistics came from."""
    base = small("resnet18")
    last = base.get_submodule("layer2.1.bn2")
    last.weight.zero_(), last.bias.zero_()
    x = pictures(8)
    same, other = copy.deepcopy(base), copy.deepcopy(base)
    drop_blocks(same, ["layer2.1"])
    drop_blocks(other, ["layer1.1"])
    seen = norm_statistics(base, [x])
    for model in (same, other):
        assert recalibrate_norms(model, [x], seen) > 0
    before, after = base.state_dict(), same.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    moved = other.state_dict()
    assert not torch.equal(moved["layer2.0.bn1.running_mean"], before["layer2.0.bn1.running_mean"])
    assert recalibrate_norms(same, [x]) > 0
    # Without the base's they are those of the images.
    assert not torch.equal(same.state_dict()["layer3.0.bn1.running_var"], before["layer3.0.bn1.running_var"])


def test_it_leaves_the_rest_alone_and_says_what_it_did():
    base = small("test_vit")
    student = replace_blocks(copy.deepcopy(base), ["blocks.1", "blocks.4.mlp"]).train()
    student.blocks[0].eval()
    weights, modes = copy.deepcopy(base.state_dict()), [part.training for part in student.modules()]
    told = []
    x = pictures(96)
    result = fit_blocks(
        student, base, x, progress=lambda done, total, what: told.append((done, total, what)), curve=True
    )
    assert [part.training for part in student.modules()] == modes
    assert all(torch.equal(weights[key], value) for key, value in base.state_dict().items())
    own = {key: value for key, value in student.state_dict().items() if ".context_pool_block." not in key}
    assert all(torch.equal(weights[key], value) for key, value in own.items())
    assert [done for done, _, _ in told] == list(range(1, 7))
    assert {total for _, total, _ in told} == {6}
    assert {what for _, _, what in told} == {"blocks.1", "blocks.4.mlp"}
    assert [set(block.curve) for block in result.blocks] == [{32, 64}] * 2
    text = str(result).splitlines()
    assert len(text) == 4
    assert all(name in line for name, line in zip(("unexplained", "blocks.1", "blocks.4.mlp", "96"), text, strict=True))


def test_more_images_explain_more():
    """And none is counted for fitting that is held out."""
    student, teacher = student_and_teacher("test_vit", "blocks.2", {}, fixed=False)
    (block,) = fit_blocks(student, teacher, pictures(144), curve=True).blocks
    assert block.unexplained < block.curve[32]
    assert block.curve[128] == pytest.approx(block.unexplained, rel=0.1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s, t, x: (t, t, x, {}), "replace_blocks"),
        (lambda s, t, x: (s, s, x, {}), "'blocks.2'"),
        (lambda s, t, x: (s, small("resnet18"), x, {}), "'blocks.2'"),
        (lambda s, t, x: (s, t, iter([x]), {}), "read only once"),
        (lambda s, t, x: (s, t, 3, {}), "3"),
        (lambda s, t, x: (s, t, [], {}), "none"),
        (lambda s, t, x: (s, t, [x[0]], {}), r"\(3, 64, 96\)"),
        (lambda s, t, x: (s, t, ["a"], {}), "str"),
        (lambda s, t, x: (s, t, x[:7], {}), "7"),
        (lambda s, t, x: (s, t, x / 0, {}), "NaN"),
        (lambda s, t, x: (s, t, torch.cat([x, x[:1] * math.nan]), {"inputs": "teacher"}), "NaN"),
        (lambda s, t, x: (s.to("meta"), t, x, {}), "no weights"),
        (lambda s, t, x: (s, t, x, {"inputs": "both"}), "'both'"),
        (lambda s, t, x: (s, t, x, {"steps": -1}), "-1"),
        (lambda s, t, x: (s, t, x, {"steps": 1.5}), "1.5"),
    ],
)
def test_mistakes_are_named(change, named):
    student, teacher = student_and_teacher("test_vit", "blocks.2", {}, fixed=False)
    student, teacher, x, options = change(student, teacher, images(8, size=(64, 96)))
    with pytest.raises(UserError, match=named):
        fit_blocks(student, teacher, x, **options)
