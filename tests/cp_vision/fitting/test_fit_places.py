"""Stand-ins for places that overlap, fitted together: each is what it would be alone."""

import copy
from functools import cache

import pytest
import torch
from slow_cases import slow_unless
from small_models import images, small

from cp_vision import UserError, fit_blocks, replace_blocks
from cp_vision.anatomy.places import find_places
from cp_vision.anatomy.token_grid import TokenGrid
from cp_vision.fitting.batches import Batches
from cp_vision.fitting.fit_places import bytes_of_sums, fit_places
from cp_vision.fitting.fitted_block import FittedBlock
from cp_vision.surgery.replace_blocks import make_replacement

# Of one base: runs that overlap, and a half of one of their blocks.
PLACES = [
    ("deit3_small_patch16_224", ["blocks.1", "blocks.1:blocks.2", "blocks.2", "blocks.0.attn"]),
    ("convnext_tiny", ["stages.1.blocks.0", "stages.1.blocks.0:stages.1.blocks.1", "stages.2.blocks.1"]),
    ("swin_tiny_patch4_window7_224", ["layers.1.blocks.0:layers.1.blocks.1", "layers.1.blocks.0.attn"]),
    ("resnet18", ["layer2.1"]),
]
OPTIONS = [{"pool": False, "rank": 6}, {"pool": False, "rank": 12}, {"rank": 8}, {"rank": 4, "supports": 2}]
CHANNELS = [{"kind": "narrow_conv", "channels": count} for count in (8, 4)]
HEADS = [{"kind": "narrow_attention", **own} for own in ({"heads": 2}, {"heads": 1}, {"heads": 2, "head_channels": 3})]


def fitted(model, names):
    tokens = cache(lambda: TokenGrid(model))
    places = [place for name in names for place in find_places(model, [name])]
    return [
        FittedBlock(place.modules[0], make_replacement(model, place, options, tokens))
        for place in places
        for options in [*OPTIONS, *((CHANNELS if place.residual else HEADS) if place.parts else [])]
    ]


@pytest.mark.parametrize(("base", "names"), slow_unless({PLACES[0][0]}, PLACES))
def test_each_is_as_if_it_were_fitted_alone(base, names):
    teacher = small(base)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    x = images(40)
    together = fitted(teacher, names)
    assert fit_places(teacher, together, Batches(x, teacher)) == 40
    for one in together:
        student = copy.deepcopy(small(base))
        replace_blocks(student, {one.replacement.name: one.replacement.options})
        (alone,) = fit_blocks(student, small(base), x, inputs="teacher", recalibrate=False).blocks
        if one.supports != alone.supports:
            # They are chosen for the first stand-in with pools that begins there.
            assert one.result.unexplained == pytest.approx(alone.unexplained, rel=0.05)
            continue
        # To rounding: sums of several targets are products of other shapes.
        assert one.result.unexplained == pytest.approx(alone.unexplained, rel=1e-9)
        assert (one.result.name, one.result.ridge) == (alone.name, alone.ridge)
        other = student.get_submodule(one.path).state_dict()
        for key, value in one.replacement.state_dict().items():
            torch.testing.assert_close(value, other[key], rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_sums_are_as_large_as_said():
    model = small("deit3_small_patch16_224")
    # Two ends; of the grid two pools and the tokens, of the class token the mean: 48 channels.
    features = {"grid": 3 * 48, "class": 2 * 48}
    expected = sum(2 * 8 * n * (n + 2 * 48) for n in features.values())
    assert bytes_of_sums(fitted(model, ["blocks.1", "blocks.1:blocks.2"])) == expected


def test_too_few_images():
    model = small("resnet18")
    with pytest.raises(UserError, match="7 are too few"):
        fit_places(model, fitted(model, ["layer1.1"]), Batches(images(7), model))
