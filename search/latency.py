"""Latency of a base and of its parts, measured on this device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cp_vision import Architecture, ContextPool2d, Site

from ..recipes.processes import single_process
from .results import PartCosts

__all__ = ["Latency", "measure_latency"]

_SECONDS = 0.2


def measure_latency(
    module: nn.Module, *args: Any, compiled: bool = False, seconds: float = _SECONDS, **kwargs: Any
) -> float:
    """Median time of a call in milliseconds, without gradients, after calls that are not counted.

    Args:
        module: a module in evaluation mode, on the device of its arguments.
        *args: its arguments.
        compiled: measure what torch.compile makes of it.
        seconds: how long to measure.
        **kwargs: its named arguments.
    """
    # Looks for a compiler of C++ when it is imported, and warns where there is a CUDA without a device.
    from torch.utils.benchmark import Timer

    called: Any = torch.compile(module) if compiled else module
    names = {"called": called, "args": args, "kwargs": kwargs}
    with torch.inference_mode():
        for _ in range(3):
            called(*args, **kwargs)
        timer = Timer("called(*args, **kwargs)", globals=names, num_threads=torch.get_num_threads())
        return 1e3 * timer.blocked_autorange(min_run_time=seconds).median


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
            own[name] = measure_latency(self.model.get_submodule(name), *args, compiled=self.compiled, **kwargs)
        added = {site.name: 0.0 for site in self.sites}
        for name, (pool, site) in self.pools.items():
            real = pool.to_empty(device=self.device).eval()
            for parameter in real.parameters():
                nn.init.zeros_(parameter)
            added[name] = measure_latency(
                real, torch.randn(1, site.channels, *site.grid, device=self.device), compiled=self.compiled
            )
        base = measure_latency(self.model, self.image, compiled=self.compiled, seconds=5 * _SECONDS)
        # What the parts take by themselves may be more than the whole: then each counts for its share.
        share = min(1.0, base / sum(own.values())) if sum(own.values()) else 1.0
        return PartCosts(base, {name: share * time for name, time in own.items()}, added)


def _note(calls: dict[str, Any], name: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[name] = (args, kwargs)

    return hook
