"""The linear backend against the exact one, and what both must bear."""

import copy
import pickle

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

from cp_vision import ContextPool1d, ContextPool2d, context_pool
from cp_vision.pooling import exact
from cp_vision.pooling import image_groups as groups
from cp_vision.pooling.context_pool import coarse_grid, uses_linear
from cp_vision.pooling.exact import axis_distances
from cp_vision.pooling.exact_on_gpu import fused_pool
from cp_vision.pooling.linear import count_linear_scales, linear_macs


def features(name, channels, side):
    """A photograph's features after a random convolution, (1, C, side, side)."""
    image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float() / 255
    image = F.interpolate(image, (4 * side, 4 * side), mode="bilinear", antialias=True)
    x = F.conv2d(image, torch.randn(channels, 3, 7, 7), stride=4, padding=3)
    return x - x.mean((2, 3), keepdim=True)


def relative(a, b):
    return float((a.detach() - b.detach()).norm() / b.detach().norm())


def leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


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


@pytest.mark.parametrize("stride", [2, 3, 4])
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


@pytest.mark.parametrize("backend", ["exact", "linear"])
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


@pytest.mark.parametrize("backend", ["exact", "linear"])
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


def test_the_batch_in_groups_is_the_batch_at_once(monkeypatch):
    monkeypatch.setattr(groups, "_GROUP_BYTES", 2 * 4 * 8 * 20 * 17)
    for options in ({}, {"mode": "replace", "stride": 2}):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            pool = ContextPool2d(8, backend="linear", **options)
            with torch.no_grad():
                for parameter in pool.parameters():
                    parameter.add_(0.3 * torch.randn_like(parameter))
            x = torch.randn(5, 8, 20, 17).contiguous(memory_format=memory_format)
            results = []
            for most in (1 << 30, 1):
                monkeypatch.setattr(groups, "_BATCH_BYTES", most)
                (leaf,) = leaves(x)
                pool.zero_grad()
                y = pool(leaf)
                y.square().sum().backward()
                with torch.no_grad():
                    results.append([y, pool(x), leaf.grad, *(p.grad.clone() for p in pool.parameters())])
                assert all(each.is_contiguous(memory_format=memory_format) for each in (y, results[-1][1]))
            for one, other in zip(*results, strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_only_the_result(dtype):
    x, weight, sigma = torch.randn(1, 4, 20, 20), torch.randn(1, 20, 20), 2 * torch.rand(1, 20, 20)
    full = context_pool(x, weight, sigma, backend="linear")
    low = context_pool(x.to(dtype), weight, sigma, backend="linear")
    assert low.dtype == dtype
    assert (low.float() - full).abs().max() <= 4 * torch.finfo(dtype).eps * x.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(context_pool(x, weight, sigma, backend="linear"), full)


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


def test_first_use_in_inference_mode_leaves_training_possible():
    pool, x = ContextPool2d(4, backend="linear"), torch.randn(1, 4, 23, 19)
    with torch.inference_mode():
        pool(x)
    pool(x.requires_grad_()).square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["exact", "linear"])
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


def test_exact_in_blocks_is_exact(monkeypatch):
    x, weight, sigma = torch.randn(2, 3, 11, 9), torch.randn(2, 11, 9), 2 * torch.rand(2, 6, 5)
    results = []
    for most in (exact._BLOCK_WEIGHTS, 2 * 11 * 9 * 5 * 2):
        monkeypatch.setattr(exact, "_BLOCK_WEIGHTS", most)
        tensors = leaves(x, weight, sigma)
        y = context_pool(*tensors, stride=2, backend="exact")
        y.square().sum().backward()
        results.append([y, *(tensor.grad for tensor in tensors)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_exact_keeps_its_digits_on_large_maps():
    x, weight = torch.randn(1, 4, 40, 40), torch.randn(1, 40, 40)
    for support in (0.3, 1.0, 4.0, 100.0):
        sigma = support * (0.5 + torch.rand(1, 40, 40))
        wanted = context_pool(x.double(), weight.double(), sigma.double(), backend="exact")
        got = context_pool(x, weight, sigma, backend="exact")
        assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max(), support


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_fused_kernel_computes_the_formula(stride):
    grid, coarse = (9, 11), coarse_grid((9, 11), stride)
    x, weight, sigma = torch.randn(2, 32, *grid), torch.randn(2, *grid), 0.1 + 2 * torch.rand(2, *coarse)
    nearest = [axis.amin(1) for axis in axis_distances(grid, coarse, stride, x.device, x.dtype)]
    got = fused_pool(x, weight, 0.5 / sigma.square(), stride, tuple(nearest))
    torch.testing.assert_close(got, context_pool(x, weight, sigma, stride=stride, backend="exact"))


def test_auto_is_exact_on_small_maps_and_linear_on_large_ones():
    for grid, linear in (((7, 7), False), ((12, 12), False), ((14, 14), True), ((56, 56), True)):
        assert uses_linear(grid) == linear
        x, weight, sigma = torch.randn(1, 2, *grid), torch.randn(1, *grid), torch.rand(1, *grid)
        backend = "linear" if linear else "exact"
        assert torch.equal(context_pool(x, weight, sigma), context_pool(x, weight, sigma, backend=backend))


def test_cost_is_linear_in_pixels():
    counts = [count_linear_scales((side, side), 1, 0.1 + 0.1 * side) for side in (56, 112, 224)]
    macs = [
        linear_macs(64, (side, side), side * side, count) for side, count in zip((56, 112, 224), counts, strict=True)
    ]
    assert macs[1] / macs[0] < 4.2
    assert macs[2] / macs[1] < 4.2


@pytest.mark.parametrize("backend", ["exact", "linear"])
def test_compiled_in_one_graph(backend):
    torch.compiler.reset()
    pool = ContextPool2d(4, backend=backend)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    # The tracer and the differentiation of the compiler, without its C++.
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    results = []
    for module in (pool, compiled):
        (x,) = leaves(torch.linspace(-1, 1, 2 * 4 * 15 * 13).view(2, 4, 15, 13).sin())
        pool.zero_grad()
        y = module(x)
        y.square().sum().backward()
        results.append([y, x.grad, *(parameter.grad.clone() for parameter in pool.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
