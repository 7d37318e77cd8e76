"""The linear backend's compiled operator for the CPU: built of ``cpu_kernel.cpp`` when it is first needed.

Where there is no C++ compiler, and where the environment says ``CP_VISION_CPU_KERNEL=0``, the backend's PyTorch
operators do the same, several times as slowly. The library lies in the user's cache folder under a name that tells
source, flags and processor.

Shapes: as in ``linear_plain``.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from .layout import memory_format
from .linear_plain import FIRST_FLOOR, FLOOR_STEP, LEAST_TOTAL
from .pyramid import level_ends, level_variance
from .windows import LEAST_EXPONENT, LEAST_SUPPORT, REACH

__all__ = ["average", "average_gradients", "find_kernel"]

_SOURCE = Path(__file__).with_name("cpu_kernel.cpp")
_FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math"),
)

_logger = logging.getLogger("cp_vision")


@functools.cache
def find_kernel() -> ctypes.CDLL | None:
    """The compiled operator; None where it is switched off, or there is no compiler that makes it."""
    if os.environ.get("CP_VISION_CPU_KERNEL") == "0":
        return None
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    if compiler is None or os.name != "posix":
        return None
    try:
        library = ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        _logger.warning("context pools run without their compiled CPU kernel, several times as slowly: %s", reason)
        return None
    return library


def average(
    library: ctypes.CDLL, x: Tensor, weight: Tensor, sigma: Tensor, gate: Tensor | None, stride: int, levels: int
) -> Tensor:
    """:func:`.linear_average` for float32 on the CPU, where not every output need have a token within reach."""
    x = x.contiguous(memory_format=memory_format(x))
    result = torch.empty(
        (*x.shape[:2], *sigma.shape[1:]), dtype=x.dtype, device=x.device, memory_format=memory_format(x)
    )
    tensors = [tensor if tensor is None else tensor.contiguous() for tensor in (weight, sigma, gate)]
    library.cp_vision_forward(_problem(x, sigma, stride, levels), *_pointers(x, *tensors, result))
    return result


def average_gradients(
    library: ctypes.CDLL,
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    sigma: Tensor,
    gate: Tensor | None,
    stride: int,
    levels: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """:func:`.linear_average_gradients` for float32 on the CPU."""
    x = x.contiguous(memory_format=memory_format(x))
    gradient = gradient.contiguous(memory_format=memory_format(x))
    weight, sigma = weight.contiguous(), sigma.contiguous()
    gate = None if gate is None else gate.contiguous()
    for_gate = None if gate is None else torch.empty_like(gate)
    found = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(sigma), for_gate
    library.cp_vision_backward(_problem(x, sigma, stride, levels), *_pointers(gradient, x, weight, sigma, gate, *found))
    return found


class _Problem(ctypes.Structure):
    """Sizes, and the constants of the formula, as the kernel's struct of this name has them."""

    _sizes = ("batch", "channels", "height", "width", "rows", "columns", "stride", "levels", "channels_last", "threads")
    _per_level = ("ends", "variances")
    _constants = ("reach", "least_exponent", "least_support", "least_total", "first_floor", "floor_step")
    _fields_ = [
        *((name, ctypes.c_int64) for name in _sizes),
        *((name, ctypes.POINTER(ctypes.c_float)) for name in _per_level),
        *((name, ctypes.c_float) for name in _constants),
    ]


def _problem(x: Tensor, sigma: Tensor, stride: int, levels: int) -> object:
    last = memory_format(x) == torch.channels_last
    sizes = (*x.shape, *sigma.shape[1:], stride, levels, last, torch.get_num_threads())
    numbers = ctypes.c_float * levels
    per_level = numbers(*level_ends(levels)), numbers(*map(level_variance, range(levels)))
    constants = (REACH, LEAST_EXPONENT, LEAST_SUPPORT, LEAST_TOTAL, FIRST_FLOOR, FLOOR_STEP)
    return ctypes.byref(_Problem(*sizes, *per_level, *constants))


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def _build(compiler: str) -> Path:
    """Compile the source unless that was done before; the library's path."""
    told = [_SOURCE.read_text(), " ".join(_FLAGS), compiler, platform.machine(), _processor()]
    name = hashlib.sha256("\0".join(told).encode()).hexdigest()[:20]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cp_vision"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise OSError(f"{folder} belongs to or can be written by others")
    library = folder / f"cpu_kernel_{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / library.name
            command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)  # noqa: S603
            made.rename(library)
    return library


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
