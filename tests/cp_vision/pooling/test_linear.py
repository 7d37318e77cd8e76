"""The linear backend against the exact one, and what both must bear."""

import contextlib
import copy
import pickle

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import nn
from torch.nn import functional as F

from cp_vision import ContextPool1d, ContextPool2d, context_pool
from cp_vision.pooling import cpu_kernel
from cp_vision.pooling.context_pool import coarse_grid, gated_context_pool, uses_linear
from cp_vision.pooling.linear import linear_macs
from cp_vision.pooling.pyramid import count_levels

from .fuzz import BOUNDS, worst_cases


# The compiled kernel, and PyTorch's operators in its place.
@pytest.fixture(params=["kernel", "plain"])
def operators(request, monkeypatch):
    """Which of the two computes the linear backend on the CPU."""
    if request.param == "plain":
        monkeypatch.setattr(cpu_kernel, "find_kernel", lambda: None)
    elif cpu_kernel.find_kernel() is None:
        pytest.skip("there is no C++ compiler")


def features(name, channels, side):
    """A photograph's features after a random convolution, (1, C, side, side)."""
    image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float() / 255
    image = F.interpolate(image, (4 * side, 4 * side), mode="bilinear", antialias=True)
    x = F.conv2d(image, torch.randn(channels, 3, 7, 7), stride=4, padding=3)
    return x - x.mean((2, 3), keepdim=True)


def relative(a, b):
    return float((a.detach() - b.detach()).norm() / b.detach().norm())


@contextlib.contextmanager
def threads_of(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize(("grid", "stride", "sigma_max"), [((41, 47), 1, 7.0), ((14, 14), 1, 1.5), ((40, 46), 2, 7.0)])
def test_kernels_are_close_to_the_gaussian(grid, stride, sigma_max):
    # With a channel for every token, the output is the kernel.
    tokens = grid[0] * grid[1]
    x = torch.eye(tokens).view(1, tokens, *grid)
    sigma = sigma_max * torch.rand(1, *coarse_grid(grid, stride))
    weight = torch.zeros(1, *grid)
    linear = context_pool(x, weight, sigma, stride=stride, backend="linear", sigma_max=sigma_max)
    error = (linear - context_pool(x, weight, sigma, stride=stride, backend="exact")).abs().sum(1)
    assert error.max() <= 0.05
    assert error.median() <= 0.015


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [14, 28, 56])
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_outputs_and_gradients_on_photographs(name, side, stride):
    x, sigma_max = features(name, 16, side), 0.1 + 0.1 * side
    weight = torch.randn(1, side, side)
    sigma = 0.1 + (sigma_max - 0.1) * torch.rand(1, *coarse_grid((side, side), stride))
    linear, reference = leaves(x, weight, sigma), leaves(x.double(), weight.double(), sigma.double())
    y = context_pool(*linear, stride=stride, backend="linear", sigma_max=sigma_max)
    expected = context_pool(*reference, stride=stride, backend="exact")
    assert relative(y, expected) <= 0.01
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient.double())
    for name_, got, wanted in zip(("x", "log_weight", "sigma"), linear, reference, strict=True):
        assert relative(got.grad, wanted.grad) <= 0.05, name_


@pytest.mark.parametrize("sigma_max", [None, 3.0])
def test_zero_support_gives_the_token_itself(sigma_max):
    x = torch.randn(2, 3, 20, 17)
    sigma = torch.zeros(2, 20, 17)
    y = context_pool(x, torch.randn(2, 20, 17), sigma, backend="linear", sigma_max=sigma_max)
    torch.testing.assert_close(y, x, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("stride", [2, 3, 4, 8])
@pytest.mark.parametrize("side", range(25, 30))
def test_outputs_beyond_the_edge_see_the_nearest_tokens(side, stride):
    x = torch.eye(side * side).view(1, -1, side, side)
    weight = torch.zeros(1, side, side)
    for support in (0.0, 0.1, 0.3, 0.7):
        sigma = torch.full((1, *coarse_grid((side, side), stride)), support)
        linear = context_pool(x, weight, sigma, stride=stride, backend="linear", sigma_max=2.0)
        exact = context_pool(x, weight, sigma, stride=stride, backend="exact")
        assert (linear - exact).abs().sum(1).max() <= 0.05, support


def test_large_support_gives_the_weighted_mean():
    x, weight = torch.randn(2, 3, 20, 17), torch.randn(2, 20, 17)
    y = context_pool(x, weight, torch.full((2, 20, 17), 1e4), backend="linear")
    share = weight.flatten(1).softmax(1).view(2, 1, 20, 17)
    mean = (share * x).sum((2, 3), keepdim=True).expand_as(y)
    assert (y - mean).abs().max() <= 0.02 * x.abs().max()


# What the linear backend must bear, by either of its operators; and the exact one.
BACKENDS = ["exact", "linear"]


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigma_max", [None, 2.0])
def test_wild_weights_and_supports_give_averages_of_tokens(backend, sigma_max):
    for weight in (-1e4, 1e4):
        for support in (0.0, 1e-3, 1.0, 3.0, 1e4):
            log_weight = torch.randn(1, 18, 18)
            log_weight[:, ::5] = weight
            tensors = leaves(torch.randn(1, 2, 18, 18), log_weight, torch.full((1, 18, 18), support))
            y = context_pool(*tensors, backend=backend, sigma_max=sigma_max)
            assert y.isfinite().all(), (weight, support)
            assert y.abs().max() <= 1.0001 * tensors[0].abs().max(), (weight, support)
            y.square().sum().backward()
            assert all(tensor.grad.isfinite().all() for tensor in tensors), (weight, support)


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_number_stays_where_it_reaches(backend):
    x, weight, sigma = torch.randn(1, 2, 16, 16), torch.zeros(1, 16, 16), torch.full((1, 16, 16), 0.8)
    sigma[0, 3, 4] = float("nan")
    y = context_pool(x, weight, sigma, backend=backend, sigma_max=2.0)
    assert y[:, :, 3, 4].isnan().all()
    assert y.isnan().sum() == 2


@pytest.mark.parametrize("grid", [(1, 1), (1, 40), (40, 1), (2, 2), (3, 50), (17, 16)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_any_size_and_stride(grid, stride):
    x, weight = torch.randn(2, 3, *grid), torch.randn(2, *grid)
    sigma = 0.1 * max(grid) * torch.rand(2, *coarse_grid(grid, stride)) + 0.1
    tensors = leaves(x, weight, sigma)
    y = context_pool(*tensors, stride=stride, backend="linear", sigma_max=0.1 + 0.1 * max(grid))
    expected = context_pool(x, weight, sigma, stride=stride, backend="exact")
    assert y.shape == expected.shape
    assert relative(y, expected) <= 0.03
    y.sum().backward()
    # A constant comes out as it went in, whatever weights and supports: those of a sum of outputs have no slope.
    assert relative(tensors[0].grad.sum(), torch.tensor(float(y.numel()))) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_only_the_result(dtype):
    x, weight, sigma = torch.randn(1, 4, 20, 20), torch.randn(1, 20, 20), 2 * torch.rand(1, 20, 20)
    full = context_pool(x, weight, sigma, backend="linear")
    low = context_pool(x.to(dtype), weight, sigma, backend="linear")
    assert low.dtype == dtype
    assert (low.float() - full).abs().max() <= 4 * torch.finfo(dtype).eps * x.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(context_pool(x, weight, sigma, backend="linear"), full)


@pytest.mark.usefixtures("operators")
def test_float64_empty_batches_and_subsets_of_gradients():
    x, weight, sigma = torch.randn(2, 3, 20, 15), torch.randn(2, 20, 15), 2 * torch.rand(2, 20, 15)
    full = context_pool(x, weight, sigma, backend="linear")
    double = context_pool(x.double(), weight.double(), sigma.double(), backend="linear")
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), full)
    assert context_pool(x[:0], weight[:0], sigma[:0], backend="linear").shape == (0, 3, 20, 15)
    for wanted in range(1, 8):
        tensors = [t.clone().requires_grad_(bool(wanted >> i & 1)) for i, t in enumerate((x, weight, sigma))]
        context_pool(*tensors, backend="linear").sum().backward()
        assert [t.grad is not None for t in tensors] == [bool(wanted >> i & 1) for i in range(3)]


@pytest.mark.usefixtures("operators")
def test_first_use_in_inference_mode_leaves_training_possible():
    pool, x = ContextPool2d(4, backend="linear"), torch.randn(1, 4, 23, 19)
    with torch.inference_mode():
        pool(x)
    pool(x.requires_grad_()).square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_copies_pickles_and_padding(backend):
    pool = ContextPool1d(6, mode="replace", support_range=0.05, backend=backend)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, mask = torch.randn(2, 200, 6), torch.zeros(2, 200, dtype=torch.bool)
    mask[0, 90:] = True
    y = pool(x, mask)
    other = torch.where(mask[..., None], torch.full_like(x, 1e3), x)
    assert torch.equal(pool(other, mask)[~mask], y[~mask])
    for twin in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):  # noqa: S301 - our own bytes
        assert torch.equal(twin(x, mask), y)


def test_auto_is_exact_on_small_maps_and_linear_on_large_ones():
    for grid, linear in (((7, 7), False), ((12, 12), False), ((14, 14), True), ((56, 56), True)):
        assert uses_linear(grid) == linear
        x, weight, sigma = torch.randn(1, 2, *grid), torch.randn(1, *grid), torch.rand(1, *grid)
        backend = "linear" if linear else "exact"
        assert torch.equal(context_pool(x, weight, sigma), context_pool(x, weight, sigma, backend=backend))


def test_cost_is_linear_in_pixels():
    counts = [count_levels(0.1 + 0.1 * side) for side in (56, 112, 224)]
    macs = [
        linear_macs(64, (side, side), side * side, 1, count) for side, count in zip((56, 112, 224), counts, strict=True)
    ]
    assert macs[1] / macs[0] < 4.2
    assert macs[2] / macs[1] < 4.2


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("grid", "stride", "sigma_max", "channels"),
    [
        ((33, 29), 1, 5.0, 20),
        ((14, 14), 1, 1.5, 16),
        ((1, 50), 1, 5.0, 5),
        ((40, 1), 2, 3.0, 33),
        ((17, 16), 3, 2.0, 7),
        ((1, 1), 1, 1.0, 3),
        ((37, 61), 4, 9.0, 16),
        ((61, 37), 8, 12.0, 2),
    ],
)
def test_the_compiled_kernel_computes_what_pytorch_does(grid, stride, sigma_max, channels, memory_format, monkeypatch):
    if cpu_kernel.find_kernel() is None:
        pytest.skip("there is no C++ compiler")
    x = torch.randn(3, channels, *grid).contiguous(memory_format=memory_format)
    weight = torch.randn(3, *grid)
    # Tokens that are left out, far enough for supports to be widened.
    weight[0, : grid[0] // 2] = weight[1, :, ::2] = -torch.inf
    weight[:, -1, -1] = 0.0
    sigma = sigma_max * torch.rand(3, *coarse_grid(grid, stride))
    gate = torch.randn(channels) if stride == 1 else None
    results = []
    for threads in (1, 3, None):
        tensors = [each if each is None else each.clone().requires_grad_() for each in (x, weight, sigma, gate)]
        if threads is None:
            monkeypatch.setattr(cpu_kernel, "find_kernel", lambda: None)
        with threads_of(threads or 1):
            y = gated_context_pool(*tensors, stride, "linear", sigma_max)
            y.backward(torch.linspace(-1, 1, y.numel()).sin().view_as(y))
        assert y.is_contiguous(memory_format=memory_format)
        results.append([y, *(each.grad for each in tensors if each is not None)])
    for one, other, plain in zip(*results, strict=True):
        assert torch.equal(one, other) or relative(one, other) <= 1e-6
        assert relative(one, plain) <= 1e-5 or (one - plain).abs().max() <= 1e-6


@pytest.mark.usefixtures("operators")
def test_left_out_tokens_are_filled_by_their_neighbours():
    x, log_weight = torch.randn(1, 3, 20, 20), torch.zeros(1, 20, 20)
    log_weight[0, 7, 7] = log_weight[0, 12:16, 3] = -torch.inf
    for support in (0.0, 0.05, 0.15, 0.2, 0.3):
        tensors = leaves(x, log_weight, torch.full((1, 20, 20), support))
        y = context_pool(*tensors, backend="linear", sigma_max=2.0)
        expected = context_pool(*tensors, backend="exact")
        torch.testing.assert_close(y[0, :, 7, 7], expected[0, :, 7, 7], atol=1e-3, rtol=0)
        torch.testing.assert_close(y[0, :, 13, 3], expected[0, :, 13, 3], atol=1e-3, rtol=0)
        y.square().sum().backward()
        assert all(tensor.grad.isfinite().all() for tensor in tensors), support


@pytest.mark.usefixtures("operators")
def test_every_input_that_is_promised():
    worst = worst_cases(40)
    assert [case for case in worst.values() if case.error > BOUNDS[case.kind]] == []


@pytest.mark.slow
def test_every_input_that_is_promised_many_times():
    worst = worst_cases(600, first=1000)
    assert [case for case in worst.values() if case.error > BOUNDS[case.kind]] == []


def test_default_types_and_devices_change_nothing():
    x, weight, sigma = torch.randn(1, 4, 23, 25), torch.randn(1, 23, 25), 5 * torch.rand(1, 23, 25)
    arguments = (x, weight, sigma)
    expected = context_pool(*arguments, backend="linear")
    try:
        torch.set_default_dtype(torch.bfloat16)
        assert torch.equal(context_pool(*arguments, backend="linear"), expected)
        torch.set_default_device("meta")
        assert torch.equal(context_pool(*arguments, backend="linear"), expected)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.equal(context_pool(*arguments, backend="linear"), expected)


@pytest.mark.usefixtures("operators")
def test_vmap_takes_one_sample_after_the_other():
    x, weight, sigma = torch.randn(3, 2, 4, 15, 13), torch.randn(3, 2, 15, 13), 2 * torch.rand(2, 15, 13)

    def loss(*arguments):
        return context_pool(*arguments, backend="linear").square().sum()

    samples = [loss(x[i], weight[i], sigma) for i in range(3)]
    torch.testing.assert_close(torch.func.vmap(loss, in_dims=(0, 0, None))(x, weight, sigma), torch.stack(samples))
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, None))(x, weight, sigma)
    torch.testing.assert_close(
        gradients, torch.stack([torch.func.grad(loss)(x[i], weight[i], sigma) for i in range(3)])
    )


def test_a_second_derivative_is_refused():
    x = torch.randn(1, 2, 14, 14, requires_grad=True)
    y = context_pool(x, torch.zeros(1, 14, 14), torch.ones(1, 14, 14), backend="linear")
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(gradient.sum(), x)


# Tracing and differentiation as the compiler does them; with its C++, in the slow tests.
@pytest.mark.parametrize(
    ("backend", "memory_format", "compiler"),
    [
        ("linear", torch.channels_last, "aot_eager"),
        *(
            pytest.param(backend, memory_format, "inductor", marks=pytest.mark.slow)
            for backend in BACKENDS
            for memory_format in (torch.contiguous_format, torch.channels_last)
        ),
    ],
)
def test_compiled_at_several_sizes(backend, memory_format, compiler):
    torch.compiler.reset()
    pool = ContextPool2d(8, backend=backend)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    around = nn.Sequential(nn.Conv2d(3, 8, 3), pool, nn.Conv2d(8, 4, 3)).to(memory_format=memory_format)
    compiled = torch.compile(around, fullgraph=True, backend=compiler)
    for size in ((24, 24), (20, 27), (33, 16)):
        x = torch.randn(2, 3, *size).contiguous(memory_format=memory_format)
        results = []
        for module in (around, compiled):
            (leaf,) = leaves(x)
            around.zero_grad()
            y = module.train()(leaf)
            y.square().sum().backward()
            results.append([y, leaf.grad, *(parameter.grad.clone() for parameter in around.parameters())])
            with torch.no_grad():
                results[-1].append(module.eval()(x))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
