"""The pooling modules."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from cp_vision import ContextPool1d, ContextPool2d, context_pool, pool_macs
from cp_vision.cost.macs import count_module
from cp_vision.cost.on_meta_device import meta_copy

OPTIONS = [
    {},
    {"mode": "replace"},
    {"learned_weight": False},
    {"learned_support": False},
    {"learned_weight": False, "learned_support": False},
    {"hidden": 5, "support_range": 0.5, "sigma_min": 0.0},
    {"mode": "replace", "stride": 2},
    {"mode": "replace", "stride": 3, "learned_support": False},
]


def shake(module):
    """Give every parameter a value that is not its initial one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("options", OPTIONS)
def test_forward_is_the_operator_on_what_the_mapping_says(options):
    pool = shake(ContextPool2d(6, **options))
    x = torch.randn(2, 6, 5, 7)
    log_weight, sigma = pool.weight_and_support(x)
    pooled = context_pool(x, log_weight, sigma, stride=pool.stride)
    expected = pooled if pool.gate is None else x + pool.gate[:, None, None] * (pooled - x)
    torch.testing.assert_close(pool(x), expected)
    assert sigma.min() >= pool.sigma_min
    assert sigma.max() <= pool.sigma_min + pool.support_range * 7
    assert (log_weight.max() > log_weight.min()) == pool.learned_weight
    assert (sigma.max() > sigma.min()) == pool.learned_support


@pytest.mark.parametrize("options", OPTIONS)
def test_every_parameter_gets_a_gradient(options):
    pool = shake(ContextPool2d(6, **options))
    pool(torch.randn(2, 6, 5, 7)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pool.parameters())


@pytest.mark.parametrize("backend", ["exact", "linear"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mode", ["gated", "replace"])
def test_gradients_are_those_of_the_parts(backend, memory_format, mode):
    pool = shake(ContextPool2d(6, mode=mode, backend=backend)).double()
    x = torch.randn(2, 6, 15, 14, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()

    def by_parts(x):
        hidden = pool.mapping[1](torch.nn.functional.conv2d(x, pool.mapping[0].weight, pool.mapping[0].bias))
        weight, support = pool.mapping[2](hidden).unbind(1)
        log_weight = 2 * (weight / 2).tanh()
        sigma = pool.sigma_min + pool.support_range * 15 * support.sigmoid()
        pooled = context_pool(x, log_weight, sigma, backend=backend, sigma_max=pool.largest_support((15, 14)))
        return pooled if pool.gate is None else x + pool.gate[:, None, None] * (pooled - x)

    tensors, gradients = [x, *pool.parameters()], []
    for function in (pool, by_parts, pool):
        # The map has another use, and its graph is gone through twice.
        loss = (function(x) * x.sin()).square().sum()
        torch.autograd.grad(loss, tensors, retain_graph=True)
        gradients.append(torch.autograd.grad(loss, tensors))
    for got, wanted, again in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted)
        assert torch.equal(got, again)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_exact_pools_have_second_derivatives(memory_format):
    pool = shake(ContextPool2d(3, backend="exact")).double()
    x = torch.randn(1, 3, 3, 4, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    assert torch.autograd.gradgradcheck(pool, (x,))
    gradient = torch.func.grad(lambda x: pool(x).square().sum())(x.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(pool(x).square().sum(), x)[0])


def test_weight_and_support_alone_have_gradients():
    pool = shake(ContextPool2d(6))
    x = torch.randn(2, 6, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    planar = x.detach().contiguous().requires_grad_()
    for tensor in (x, planar):
        log_weight, sigma = pool.weight_and_support(tensor)
        (log_weight.square().sum() + sigma.square().sum()).backward()
    torch.testing.assert_close(x.grad, planar.grad)


@pytest.mark.parametrize("backend", ["exact", "linear"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_in_half_precision(backend, dtype):
    pool = shake(ContextPool2d(6, backend=backend))
    x = torch.randn(2, 6, 15, 14).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradients = []
    for autocast in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = pool(x if autocast else x.float())
        assert y.dtype == (dtype if autocast else torch.float32)
        gradients.append(torch.autograd.grad(y.float().square().sum(), [x, *pool.parameters()]))
    for got, wanted in zip(*gradients, strict=True):
        assert got.dtype == wanted.dtype
        assert (got - wanted).norm() <= 0.05 * wanted.norm()


def test_a_new_gated_pool_changes_nothing_and_learns():
    pool, x = ContextPool2d(6), torch.randn(2, 6, 5, 7)
    assert torch.equal(pool(x), x)
    pool(x).square().sum().backward()
    assert pool.gate.grad.abs().sum() > 0


def test_a_pool_begins_anew():
    pool, x = shake(ContextPool2d(6)), torch.randn(2, 6, 5, 7)
    pool.reset_parameters()
    assert torch.equal(pool(x), x)
    for got, wanted in zip(pool.weight_and_support(x), ContextPool2d(6).weight_and_support(x), strict=True):
        assert torch.equal(got, wanted)


class Adapted(nn.Module):
    def __init__(self, convolution):
        super().__init__()
        self.convolution, self.more = convolution, nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.convolution(x) + self.more(x)


def prune_some(pool):
    prune.l1_unstructured(pool.mapping[0], "weight", 0.3)


def norm(pool):
    parametrizations.weight_norm(pool.mapping[0])


def adapt(pool):
    pool.mapping[0] = Adapted(pool.mapping[0])


def double(pool):
    pool.mapping[0].register_forward_hook(lambda module, args, output: 2 * output)


@pytest.mark.parametrize("change", [prune_some, norm, adapt, double])
def test_a_mapping_that_others_have_changed_is_called(change):
    pool = shake(ContextPool2d(6))
    plain, x = copy.deepcopy(pool), torch.randn(2, 6, 5, 7)
    change(pool)
    with torch.no_grad():
        pool.mapping[0](x[:1])
    lying_last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(pool(lying_last), pool(x))
    assert change is norm or not torch.equal(pool(x), plain(x))
    # As two steps of a training do.
    for _ in range(2):
        pool(lying_last.requires_grad_()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pool.parameters())


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("grid", [(5, 7), (1, 1), (8, 8), (15, 14), (40, 33), (1, 150)])
def test_cost_has_a_closed_form(options, grid):
    pool = ContextPool2d(6, **options)
    assert count_module(meta_copy(pool), (6, *grid)) == pool.macs(grid) == pool_macs(pool, grid)


@pytest.mark.parametrize(
    ("channels", "grid", "share"), [(256, 56, 0.35), (512, 28, 0.20), (1024, 14, 0.10), (2048, 7, 0.05)]
)
def test_a_pool_costs_a_small_share_of_a_resnet50_block(channels, grid, share):
    # 1 x 1, 3 x 3 and 1 x 1 convolutions with a quarter of the channels between.
    block = channels**2 // 4 * 2 + (channels // 4) ** 2 * 9
    mapping = ContextPool2d(channels, backend="exact").macs((grid, grid)) - grid**4 * channels
    assert mapping < 0.01 * block * grid**2
    assert ContextPool2d(channels).macs((grid, grid)) <= share * block * grid**2


def test_sequence_is_a_map_of_height_one():
    pool, x = shake(ContextPool1d(6, mode="replace", support_range=0.5)), torch.randn(2, 9, 6)
    log_weight, sigma = pool.weight_and_support(x.mT.unsqueeze(2))
    expected = context_pool(x.mT.unsqueeze(2), log_weight, sigma).squeeze(2).mT
    torch.testing.assert_close(pool(x), expected)
    assert shake(ContextPool1d(6, mode="replace", stride=2))(x).shape == (2, 5, 6)


def test_padding_gives_to_no_other_token():
    pool = shake(ContextPool1d(6, mode="replace", support_range=0.5))
    x, mask = torch.randn(2, 9, 6), torch.zeros(2, 9, dtype=torch.bool)
    mask[0, 5:] = True
    y = pool(x, mask)
    other = torch.where(mask[..., None], torch.full_like(x, 1e3), x)
    assert torch.equal(pool(other, mask)[~mask], y[~mask])
    assert torch.equal(y[mask], x[mask])
    assert torch.equal(pool(x, torch.zeros_like(mask)), pool(x))


@pytest.mark.parametrize("backend", ["exact", "linear", "auto"])
@pytest.mark.parametrize("options", [{}, {"mode": "replace"}, {"mode": "replace", "stride": 2}])
def test_a_sequence_of_padding_alone(options, backend):
    pool = shake(ContextPool1d(6, backend=backend, **options))
    x, mask = torch.randn(3, 20, 6).requires_grad_(), torch.zeros(3, 20, dtype=torch.bool)
    mask[1], mask[2, 5:] = True, True
    y = pool(x, mask)
    assert torch.equal(y[1], x[1] if pool.stride == 1 else torch.zeros(10, 6))
    tensors = [x, *pool.parameters()]
    gradients = torch.autograd.grad(y.square().sum(), tensors)
    assert all(gradient.isfinite().all() for gradient in gradients)
    # Its parameters learn what they learn without that sequence.
    kept = x.detach()[[0, 2]].requires_grad_()
    others = torch.autograd.grad(pool(kept, mask[[0, 2]]).square().sum(), [kept, *tensors[1:]])
    torch.testing.assert_close((gradients[0][[0, 2]], *gradients[1:]), others)


@pytest.mark.parametrize("backend", ["exact", "linear"])
@pytest.mark.parametrize("options", [{}, {"mode": "replace", "stride": 2}])
def test_a_batch_of_nothing(options, backend):
    length = 10 // options.get("stride", 1)
    pool, x = ContextPool1d(6, backend=backend, **options), torch.randn(0, 10, 6).requires_grad_()
    for mask in (None, torch.zeros(0, 10, dtype=torch.bool)):
        assert pool(x, mask).shape == (0, length, 6)
    image = ContextPool2d(6, backend=backend, **options)(torch.randn(0, 6, 10, 10))
    assert image.shape == (0, 6, length, length)
    pool(x).sum().backward()
    assert x.grad.shape == x.shape


def test_weights_differ_by_a_bounded_factor():
    pool, x = ContextPool2d(6), 1e3 * torch.randn(2, 6, 9, 9)
    with torch.no_grad():
        pool.mapping[2].weight.normal_()
    log_weight, _ = pool.weight_and_support(x)
    assert log_weight.amin() >= -2
    assert log_weight.amax() <= 2
    assert log_weight.amax() - log_weight.amin() > 3.5
    # Small ones are what the mapping says.
    small = x / 1e5
    said = pool.mapping(small)[:, 0].detach()
    off = (pool.weight_and_support(small)[0] - said).abs()
    assert off.max() <= said.abs().max() ** 3 / 4


def loss(parameters, pool, *inputs):
    return torch.func.functional_call(pool, parameters, inputs).square().sum()


# On the largest map "auto" is linear.
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: ContextPool2d(4), (4, 3, 4)),
        (lambda: ContextPool2d(4), (4, 15, 15)),
        (lambda: ContextPool2d(4, mode="replace", stride=2, backend="exact"), (4, 5, 4)),
        (lambda: ContextPool1d(4, mode="replace"), (7, 4)),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_vmap(make, shape, last):
    """Per-sample gradients are those of each sample, and an ensemble of pools is each of its pools."""
    pools, x = [shake(make()) for _ in range(3)], torch.randn(3, 2, *shape)
    if last and len(shape) == 3:
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    parameters = dict(pools[0].named_parameters())
    per_sample = torch.func.vmap(torch.func.grad(loss), (None, None, 0))(parameters, pools[0], x)
    for i, sample in enumerate(x):
        expected = torch.autograd.grad(pools[0](sample).square().sum(), list(parameters.values()))
        for name, wanted in zip(parameters, expected, strict=True):
            torch.testing.assert_close(per_sample[name][i], wanted, atol=1e-4, rtol=1e-4)
    stacked, _ = torch.func.stack_module_state(pools)
    call = torch.func.vmap(lambda parameters, x: torch.func.functional_call(pools[0], parameters, (x,)))
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            ensemble = call(stacked, x)
            expected = torch.stack([pool(sample) for pool, sample in zip(pools, x, strict=True)])
        torch.testing.assert_close(ensemble, expected, atol=1e-5, rtol=1e-5)


def test_copies_and_pickles():
    pool, x = shake(ContextPool2d(6)), torch.randn(1, 6, 4, 4)
    for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):  # noqa: S301 - our own bytes
        assert torch.equal(other(x), pool(x))


def test_float64_and_channels_last():
    pool = shake(ContextPool2d(6)).double()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    assert pool(x).dtype == torch.float64
    y = pool(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, pool(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContextPool2d(6, mode="soft"), "mode 'soft'.*gated, replace"),
        (lambda: ContextPool2d(6, stride=2), "stride 2"),
        (lambda: ContextPool2d(6, stride=0, mode="replace"), "stride 0"),
        (lambda: ContextPool2d(6, stride=2.0, mode="replace"), "stride 2.0"),
        (lambda: ContextPool2d(6, stride=1.0), "stride 1.0"),
        (lambda: ContextPool1d(6, stride=True, mode="replace"), "stride True"),
        (lambda: ContextPool2d(0), "channels 0"),
        (lambda: ContextPool2d(True), "channels True"),
        (lambda: ContextPool2d(6, support_range=True), "support_range True"),
        (lambda: ContextPool2d(6, 9, "replace", backend="linear"), "'linear'.* 9"),
        (lambda: ContextPool2d("six"), "channels 'six'"),
        (lambda: ContextPool2d(6, hidden=0), "hidden 0"),
        (lambda: ContextPool2d(6, hidden=2.0), "hidden 2.0"),
        (lambda: ContextPool2d(6, support_range=0), "support_range 0"),
        (lambda: ContextPool2d(6, support_range=float("inf")), "support_range inf"),
        (lambda: ContextPool2d(6, sigma_min=-1), "sigma_min -1"),
        (lambda: ContextPool2d(6, backend="gpu"), "backend 'gpu'"),
        (lambda: ContextPool2d(6)(torch.zeros(1, 5, 4, 4)), r"\(B, 6, H, W\).*\(1, 5, 4, 4\)"),
        (lambda: ContextPool1d(6)(torch.zeros(1, 6, 5)), r"\(B, N, 6\).*\(1, 6, 5\)"),
        (lambda: ContextPool1d(6)(torch.zeros(2, 0, 6)), r"\(2, 0, 6\)"),
        (lambda: ContextPool1d(6)(torch.zeros(2, 0, 6), torch.zeros(2, 0, dtype=torch.bool)), r"\(2, 0, 6\)"),
        (lambda: ContextPool2d(6)(torch.zeros(2, 6, 0, 4)), r"\(2, 6, 0, 4\)"),
        (
            lambda: ContextPool1d(6)(torch.zeros(1, 5, 6), torch.zeros(1, 4, dtype=torch.bool)),
            r"padding_mask.*\(1, 4\)",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
