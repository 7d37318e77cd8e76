"""Latency of a base and of its parts, measured on this device."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from cp_vision import Architecture, ContextPool2d, Site

from ...recipes.processes import single_process
from ..types import PartCosts

__all__ = ["Latency", "measure_latency"]

_SECONDS = 0.2
_MOST_COMPILED = 10_000


def measure_latency(
    module: nn.Module, *args: Any, compiled: bool = False, seconds: float = _SECONDS, **kwargs: Any
) -> float:
    """Median time of a call in milliseconds, without gradients, after calls that are not counted.

    A module that is measured again is not compiled again.

    Args:
        module: a module in evaluation mode, on the device of its arguments.
        *args: its arguments.
        compiled: measure what torch.compile makes of it.
        seconds: how long to measure.
        **kwargs: its named arguments.
    """
    # Looks for a compiler of C++ when it is imported, and warns where there is a CUDA without a device.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    # Of other shapes than the module before it too, it is the code for these that is measured.
    called: Any = torch.compile(module, dynamic=False) if compiled else module
    names = {"called": called, "args": args, "kwargs": kwargs}
    with torch.inference_mode(), _room_for_all() if compiled else nullcontext():
        for _ in range(3):
            called(*args, **kwargs)
        timer = Timer("called(*args, **kwargs)", globals=names, num_threads=torch.get_num_threads())
        return 1e3 * timer.blocked_autorange(min_run_time=seconds).median


def _room_for_all() -> AbstractContextManager[None]:
    """Let any number of modules be compiled: of a class torch compiles eight, by default, and no more."""
    # Takes a second to import.
    import torch._dynamo

    limits = {"recompile_limit": _MOST_COMPILED, "accumulated_recompile_limit": _MOST_COMPILED}
    patched: AbstractContextManager[None] = torch._dynamo.config.patch(limits)
    return patched


class Latency:
    """Times of one image: of the base as a whole, of each block and each pool by itself.

    Args:
        base: the base.
        input_size: (channels, height, width) of the image.
        sites: the sites to measure.
        pools: of those that may have one, the pool (on no device) and the site.
        compiled: measure what torch.compile makes of each.
    """

    def __init__(
        self,
        base: Architecture,
        input_size: tuple[int, int, int],
        sites: list[Site],
        pools: dict[str, tuple[ContextPool2d, Site]],
        compiled: bool,
    ) -> None:
        self.device, self.compiled = single_process().device, compiled
        self.model = base.build().eval().to(self.device)
        self.image = torch.randn(1, *input_size, device=self.device)
        self.sites, self.pools = sites, pools

    def costs(self) -> PartCosts:
        """Milliseconds of the base, of each block and of each pool."""
        calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        handles = [
            self.model.get_submodule(site.name).register_forward_pre_hook(_note(calls, site.name), with_kwargs=True)
            for site in self.sites
            if site.kind == "block"
        ]
        with torch.inference_mode():
            self.model(self.image)
        for handle in handles:
            handle.remove()
        own = {site.name: 0.0 for site in self.sites}
        for name, (args, kwargs) in calls.items():
            own[name] = self._time(self.model.get_submodule(name), *args, **kwargs)
        added = {site.name: 0.0 for site in self.sites}
        for name, (pool, site) in self.pools.items():
            real = pool.to_empty(device=self.device).eval()
            for parameter in real.parameters():
                nn.init.zeros_(parameter)
            added[name] = self._time(real, torch.randn(1, site.channels, *site.grid, device=self.device))
        base = self._time(self.model, self.image, seconds=5 * _SECONDS)
        # What the parts take by themselves may be more than the whole: then each counts for its share.
        share = min(1.0, base / sum(own.values())) if sum(own.values()) else 1.0
        return PartCosts(base, {name: share * time for name, time in own.items()}, added)

    def _time(self, module: nn.Module, *args: Any, **kwargs: Any) -> float:
        if self.compiled:
            # Nothing that was compiled before is in its way.
            torch.compiler.reset()
        return measure_latency(module, *args, compiled=self.compiled, **kwargs)


def _note(calls: dict[str, Any], name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[name] = (args, kwargs)

    return hook
