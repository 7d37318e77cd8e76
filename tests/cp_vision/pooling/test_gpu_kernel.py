"""Triton's kernels without a GPU: what they compute, by Triton's interpreter, and that they compile for some."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

from cp_vision.pooling import gpu_kernel  # noqa: E402 - Triton comes with PyTorch's builds for GPUs alone

ROOT = Path(__file__).parents[3]


def test_they_compute_what_pytorch_does():
    command = [sys.executable, "-m", "tests.cp_vision.pooling.interpreted_kernel"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_they_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("CP_VISION_GPU_KERNEL", "0")
    gpu_kernel.is_usable.cache_clear()
    assert not gpu_kernel.is_usable(torch.device("cpu"))
    gpu_kernel.is_usable.cache_clear()


@pytest.mark.parametrize("target", [("cuda", 80, 32), ("cuda", 90, 32), ("hip", "gfx942", 64)])
@pytest.mark.parametrize("grid", [(14, 14), (1, 196)])
def test_they_compile(target, grid):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    numbers = ("tokens", "channels", "height", "width", "rows", "columns", "stride")
    for kernel in (gpu_kernel._sum_kernel, gpu_kernel._gradient_kernel):
        # Sizes of one are constants to Triton.
        constants = {"LEVELS": 3, "ROWS": min(9, grid[0]), "COLUMNS": 9, "BLOCK": 16, "WIDE": 64, "stride": 1}
        constants |= {"height": 1, "rows": 1} if grid[0] == 1 else {}
        types = {name: "i32" if name in numbers else "*i8" if name == "moved" else "*fp32" for name in kernel.arg_names}
        types |= dict.fromkeys(constants, "constexpr")
        made = triton.compile(ASTSource(kernel, types, constants), target=GPUTarget(*target))
        assert {"cubin", "hsaco"} & {*made.asm}
