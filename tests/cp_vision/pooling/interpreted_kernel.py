"""What Triton's kernels compute, on the CPU by Triton's interpreter, beside PyTorch's operators.

    TRITON_INTERPRET=1 python -m tests.cp_vision.pooling.interpreted_kernel

A process of its own, since whether functions are interpreted is settled when Triton is imported. An AssertionError
says where they differ.
"""

import logging
from unittest import mock

import torch

from cp_vision.pooling import gpu_kernel
from cp_vision.pooling.context_pool import coarse_grid
from cp_vision.pooling.linear_plain import linear_average, linear_average_gradients
from cp_vision.pooling.pyramid import level_ends

# Grid, stride, levels, share of tokens left out, whether with a gate, tokens of a program. The interpreter takes as
# long for a program of many tokens as for one of few.
CASES = [
    ((9, 7), 1, 3, 0.0, True, 256),
    ((11, 14), 2, 2, 0.6, False, 256),
    ((9, 40), 8, 5, 0.9, False, 256),
    ((1, 30), 1, 4, 0.3, True, 16),
    ((30, 1), 3, 3, 0.5, False, 16),
    ((1, 1), 1, 2, 0.0, True, 16),
]


def compare(grid, stride, levels, left_out, gated):
    """Averages and all gradients, of 19 channels in three groups, with a support of 0 and one that is no number."""
    x, weight = torch.randn(2, 19, *grid), torch.rand(2, *grid)
    weight[torch.rand(weight.shape) < left_out] = 0.0
    weight[:, 0, 0] = 1.0
    sigma = level_ends(levels)[-1] * torch.rand(2, *coarse_grid(grid, stride))
    sigma[0, 0, 0], sigma[1, -1, -1] = 0.0, float("nan")
    arguments = (x, weight, sigma, torch.randn(19) if gated else None, stride, levels)
    gradient = torch.randn(2, 19, *sigma.shape[1:])
    plain, fused = (
        (linear_average(*arguments, False, *kind), *linear_average_gradients(gradient, *arguments, *kind))
        for kind in ([], [gpu_kernel.FusedWindows])
    )
    assert not plain[0][0].isnan().any()
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5, equal_nan=True)


def main():
    torch.manual_seed(0)
    with mock.patch.object(gpu_kernel, "_WIDE", 8):
        for *case, block in CASES:
            with mock.patch.object(gpu_kernel, "_BLOCK", block):
                compare(*case)
    # What is tried at first use.
    cpu, average = torch.device("cpu"), gpu_kernel.FusedWindows.average
    with mock.patch.object(gpu_kernel, "_BLOCK", 512):
        assert gpu_kernel.is_usable(cpu)
        gpu_kernel.is_usable.cache_clear()
        wrong = mock.patch.object(gpu_kernel.FusedWindows, "average", lambda *given: 1.1 * average(*given))
        with wrong, mock.patch.object(logging.getLogger("cp_vision"), "warning") as warning:
            assert not gpu_kernel.is_usable(cpu)
            warning.assert_called_once()


if __name__ == "__main__":
    main()
