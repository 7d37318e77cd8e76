"""The exact backend in blocks, on large maps and as attention."""

import pytest
import torch

from cp_vision import context_pool
from cp_vision.pooling import exact
from cp_vision.pooling.context_pool import coarse_grid
from cp_vision.pooling.exact import axis_distances
from cp_vision.pooling.exact_on_gpu import fused_pool


def test_exact_in_blocks_is_exact(monkeypatch):
    x, weight, sigma = torch.randn(2, 3, 11, 9), torch.randn(2, 11, 9), 2 * torch.rand(2, 6, 5)
    results = []
    for most in (exact._BLOCK_WEIGHTS, 2 * 11 * 9 * 5 * 2):
        monkeypatch.setattr(exact, "_BLOCK_WEIGHTS", most)
        tensors = [tensor.clone().requires_grad_() for tensor in (x, weight, sigma)]
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
