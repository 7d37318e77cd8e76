"""The operator against the formula, in float64, by a double loop."""

import math

import pytest
import torch

from cp_vision import context_pool
from cp_vision.pooling.context_pool import coarse_grid


def by_loops(x, log_weight, sigma, stride=1):
    """The formula of the docstring, one token at a time."""
    batch, channels, height, width = x.shape
    rows, columns = coarse_grid((height, width), stride)
    y = torch.zeros(batch, channels, rows, columns, dtype=torch.float64)
    for b in range(batch):
        for i in range(rows):
            for j in range(columns):
                row, column = i * stride + (stride - 1) / 2, j * stride + (stride - 1) / 2
                logits = {}
                for k in range(height):
                    for m in range(width):
                        distance = (row - k) ** 2 + (column - m) ** 2
                        logits[k, m] = float(log_weight[b, k, m]) - distance / (2 * float(sigma[b, i, j]) ** 2)
                top = max(logits.values())
                total = sum(math.exp(value - top) for value in logits.values())
                for (k, m), value in logits.items():
                    y[b, :, i, j] += math.exp(value - top) / total * x[b, :, k, m].double()
    return y


def inputs(batch, channels, height, width, stride=1, dtype=torch.float32, spread=1.0, support=2.0):
    rows, columns = coarse_grid((height, width), stride)
    x = torch.randn(batch, channels, height, width, dtype=dtype)
    log_weight = spread * torch.randn(batch, height, width, dtype=dtype)
    sigma = support * torch.rand(batch, rows, columns, dtype=dtype) + 0.2
    return x, log_weight, sigma


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((2, 3, 5, 5), 1),
        ((1, 2, 4, 7), 1),  # not square
        ((2, 3, 1, 1), 1),  # one pixel
        ((1, 2, 1, 9), 1),
        ((1, 3, 6, 6), 2),
        ((2, 2, 5, 7), 2),  # the last windows hang over the edge
        ((1, 2, 7, 4), 3),
        ((1, 2, 2, 2), 4),  # one window larger than the grid
    ],
)
@pytest.mark.parametrize("support", [1e-5, 1e-3, 0.05, 2.0, 100.0, 1e4])
def test_exact_is_the_formula(shape, stride, support):
    x, log_weight, sigma = inputs(*shape, stride=stride)
    sigma = support * (sigma / sigma.max())
    y = context_pool(x, log_weight, sigma, stride=stride, backend="exact")
    expected = by_loops(x, log_weight, sigma, stride)
    assert y.shape == expected.shape
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients(stride):
    tensors = [t.requires_grad_() for t in inputs(2, 2, 4, 3, stride=stride, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *t: context_pool(*t, stride=stride), tensors)


def test_small_support_gives_the_token_itself():
    x, log_weight, sigma = inputs(2, 3, 6, 5)
    for value in (0.0, 1e-30, 1e-3, 0.05):
        y = context_pool(x, log_weight, torch.full_like(sigma, value))
        assert torch.equal(y, x), value


def test_gradients_are_finite_at_zero_support():
    tensors = [t.requires_grad_() for t in inputs(1, 2, 4, 4)]
    context_pool(tensors[0], tensors[1], tensors[2] * 0).sum().backward()
    assert all(t.grad.isfinite().all() for t in tensors)


@pytest.mark.parametrize("backend", ["exact", "linear"])
def test_infinite_support_gives_the_weighted_mean(backend):
    tensors = [t.requires_grad_() for t in inputs(2, 3, 6, 5)[:2]]
    sigma = torch.full((2, 6, 5), math.inf, requires_grad=True)
    y = context_pool(*tensors, sigma, backend=backend)
    shares = tensors[1].flatten(1).softmax(1).view_as(tensors[1])
    mean = (tensors[0] * shares[:, None]).sum((2, 3), keepdim=True)
    torch.testing.assert_close(y, mean.expand_as(y), atol=2e-5 if backend == "exact" else 0.02, rtol=0)
    y.square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (*tensors, sigma))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_that_stay_keep_their_weights(dtype, stride):
    x, log_weight, sigma = inputs(1, 3, 9, 8, stride, dtype)
    # Where no token stays, those around are equally near.
    log_weight[0, 1:-1:2, 1:-1] = log_weight[0, 2:4, 2:4] = -torch.inf
    wanted = by_loops(x, log_weight, torch.full_like(sigma, 0.01), stride).to(dtype)
    for support in (0.0, 1e-6, 1e-4, 0.01):
        y = context_pool(x, log_weight, torch.full_like(sigma, support), stride=stride, backend="exact")
        torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-5)


def test_large_support_and_equal_weights_give_the_mean():
    x, log_weight, sigma = inputs(2, 3, 6, 5)
    y = context_pool(x, log_weight * 0, torch.full_like(sigma, 1e4))
    torch.testing.assert_close(y, x.mean((2, 3), keepdim=True).expand_as(y))


def test_weights_matter_only_up_to_a_factor():
    x, log_weight, sigma = inputs(1, 2, 5, 5)
    torch.testing.assert_close(
        context_pool(x, log_weight + 7, sigma), context_pool(x, log_weight, sigma), atol=1e-5, rtol=1e-5
    )


def test_extreme_inputs_stay_finite():
    for weight in (-1e4, 1e4):
        for support in (0.0, 1e-3, 1.0, 1e4):
            x, log_weight, sigma = inputs(1, 2, 5, 5)
            log_weight[:, 0] = weight
            tensors = [
                x.requires_grad_(),
                log_weight.requires_grad_(),
                torch.full_like(sigma, support).requires_grad_(),
            ]
            y = context_pool(*tensors)
            y.square().sum().backward()
            assert y.isfinite().all(), (weight, support)
            assert all(t.grad.isfinite().all() for t in tensors), (weight, support)


def test_weights_are_never_denormal():
    # Tokens 37 and 38 pixels away weigh 1e-36 and 1e-38 here, and those further off would be denormal.
    x = torch.zeros(1, 1, 1, 41)
    x[..., 0] = 1.0
    weights = context_pool(x, torch.zeros(1, 1, 41), torch.full((1, 1, 41), 2.9))
    assert (weights == 0).any()
    assert weights[weights > 0].min() > 1e-28


def test_empty_batch_and_subsets_of_gradients():
    x, log_weight, sigma = inputs(0, 2, 3, 3)
    assert context_pool(x, log_weight, sigma).shape == (0, 2, 3, 3)
    for wanted in range(1, 8):
        tensors = [t.requires_grad_(bool(wanted >> i & 1)) for i, t in enumerate(inputs(1, 2, 3, 3))]
        context_pool(*tensors).sum().backward()
        assert [t.grad is not None for t in tensors] == [bool(wanted >> i & 1) for i in range(3)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_only_the_product(dtype):
    x, log_weight, sigma = inputs(1, 4, 20, 20)
    exact = context_pool(x, log_weight, sigma)
    low = context_pool(x.to(dtype), log_weight, sigma)
    assert low.dtype == dtype
    assert (low.float() - exact).abs().max() <= 4 * torch.finfo(dtype).eps * x.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        cast = context_pool(x, log_weight, sigma)
    assert cast.dtype == x.dtype
    assert (cast - exact).abs().max() <= 4 * torch.finfo(torch.bfloat16).eps * x.abs().max()


def test_memory_format_is_kept():
    x, log_weight, sigma = inputs(2, 3, 6, 5)
    y = context_pool(x.contiguous(memory_format=torch.channels_last), log_weight, sigma)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, context_pool(x, log_weight, sigma))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"x": a["x"][0]}, r"\(B, C, H, W\).*\(2, 4, 5\)"),
        (lambda a: a | {"log_weight": a["log_weight"][:, 1:]}, r"log_weight.*\(1, 3, 5\)"),
        (lambda a: a | {"sigma": a["sigma"][..., 1:]}, r"sigma.*\(1, 4, 4\)"),
        (lambda a: a | {"stride": 2}, r"sigma.*\(1, 2, 3\)"),
        (lambda a: a | {"stride": 0}, "stride 0"),
        (lambda a: a | {"stride": 1.0}, r"stride 1\.0"),
        (lambda a: a | {"stride": True}, "stride True"),
        (lambda a: a | {"stride": 9, "backend": "linear"}, "'linear'.* 9"),
        (lambda a: a | {"backend": "fast"}, "'fast'.*auto, exact, linear"),
        (lambda a: a | {"sigma_max": 0.0}, r"sigma_max 0\.0"),
        (lambda a: a | {"sigma_max": math.inf}, "sigma_max inf"),
        (lambda a: a | {"sigma_max": math.nan}, "sigma_max nan"),
        (lambda a: a | {"x": a["x"].long()}, r"torch\.int64"),
        (lambda a: a | {"x": a["x"][:, :, :0]}, r"\(1, 2, 0, 5\)"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = dict(zip(("x", "log_weight", "sigma"), inputs(1, 2, 4, 5), strict=True))
    with pytest.raises(ValueError, match=message):
        context_pool(**change(arguments))
