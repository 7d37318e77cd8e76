"""ContextPoolBlock: the map that its docstring says, on every layout of memory."""

import copy

import pytest
import torch
from torch.nn import functional as F

from cp_vision import ContextPoolBlock
from cp_vision.cost.macs import count_module

CASES = [
    {},
    {"rank": 3},
    {"rank": 8},
    {"pool": False},
    {"pool": False, "rank": 2, "norm": True},
    {"norm": True, "residual": False},
    {"supports": 2, "rank": 2, "norm": True},
    {"prefix": 2, "norm": True, "rank": 3},
    {"prefix": 1, "pool": False, "residual": False},
    {"learned_support": True, "learned_weight": True, "norm": True, "backend": "linear"},
    {"learned_support": True, "rank": 3, "support_range": 0.3},
    {"learned_weight": True, "supports": 2},
]


def stirred(channels=8, **options):
    torch.manual_seed(0)
    block = ContextPoolBlock(channels, **options)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3)
    return block


def given(block, size=(6, 5)):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, block.channels, *size, generator=generator)
    return (x, torch.randn(2, block.prefix, block.channels, generator=generator)) if block.prefix else (x,)


def as_tuple(output):
    return output if isinstance(output, tuple) else (output,)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_it_is_a_linear_map_of_its_features(options):
    """The short way, through the waist and then the pools, is the long one."""
    block = stirred(**options)
    x_BCHW, *prefix = given(block)
    n_BCHW = F.layer_norm(x_BCHW.movedim(1, 3), (8,), eps=1e-6).movedim(3, 1) if block.norm else x_BCHW
    pooled = [pool(n_BCHW) for pool in block.pools]
    stacked = torch.cat([n_BCHW, *pooled], 1).movedim(1, 3)
    expected = block.read_out(stacked).movedim(3, 1) + (x_BCHW if block.residual else 0)
    got, *got_prefix = as_tuple(block(x_BCHW, *prefix))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    of_grid, *of_prefix = block.features(x_BCHW, *prefix)
    torch.testing.assert_close(of_grid, stacked.flatten(1, 2))
    for i, (features, read_out) in enumerate(zip(of_prefix, block.read_outs()[1:], strict=True)):
        residual = prefix[0][:, i : i + 1] if block.residual else 0
        torch.testing.assert_close(got_prefix[0][:, i : i + 1], read_out(features) + residual)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_a_new_one_is_the_identity_and_can_learn(options):
    block = ContextPoolBlock(8, **options)
    inputs = given(block)
    for x, y in zip(inputs, as_tuple(block(*inputs)), strict=True):
        assert torch.equal(y, x if block.residual else torch.zeros_like(x))
    sum(y.square().sum() + y.sum() for y in as_tuple(block(*inputs))).backward()
    assert all(read_out.bias.grad.abs().sum() > 0 for read_out in block.read_outs())


@pytest.mark.parametrize("options", CASES, ids=str)
def test_memory_formats_give_the_same(options):
    block = stirred(**options)
    x, *prefix = given(block)
    planar, last = (
        as_tuple(block(x.contiguous(memory_format=f), *prefix)) for f in (torch.contiguous_format, torch.channels_last)
    )
    for one, other in zip(planar, last, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 5), (20, 24)])
@pytest.mark.parametrize("options", [case for case in CASES if "prefix" not in case], ids=str)
def test_macs_are_those_that_are_counted(options, size):
    block = ContextPoolBlock(64, **options)
    counted = count_module(copy.deepcopy(block).to("meta"), (64, *size))
    assert block.macs(size) == pytest.approx(counted, rel=2e-3)


def test_default_rank_costs_as_much_as_a_full_map():
    plain = ContextPoolBlock(96, pool=False)
    assert [ContextPoolBlock(96, supports=count).rank for count in (1, 2, 4)] == [32, 24, 16]
    assert plain.rank == 96
    maps = [ContextPoolBlock(96, supports=count) for count in (1, 2)]
    for block in maps:
        pools = sum(pool.macs((8, 8), block.rank) for pool in block.pools)
        assert block.macs((8, 8)) - pools == plain.macs((8, 8))


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"rank": 0}, "0"),
        ({"rank": 9}, "9"),
        ({"rank": 2.0}, "2.0"),
        ({"rank": True}, "True"),
        ({"supports": 0}, "0"),
        ({"prefix": -1}, "-1"),
        ({"pool": 1}, "1"),
        ({"norm": None}, "None"),
        ({"learned_weight": 1}, "1"),
        ({"support_range": 0.3}, "support_range"),
        ({"learned_weight": True, "support_range": 0}, "0"),
        ({"learned_support": True, "backend": "fast"}, "'fast'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options, value):
    with pytest.raises(ValueError, match=value):
        ContextPoolBlock(8, **options)


def test_wrong_maps_are_named():
    block = ContextPoolBlock(8, prefix=1)
    x, token = given(block)
    for inputs in ((x[:, :7], token), (x[0], token), (x[:, :, :0], token), (x,), (x, token[:, :0])):
        with pytest.raises(ValueError, match="expected"):
            block(*inputs)
