"""Counting what every part of a base costs: once for each combination of what may be chosen for a whole candidate."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

from timm.models import model_entrypoint
from torch import nn

from cp_vision import Architecture, ContextPool2d, Site, count_macs, find_sites, insert_pools, pool_macs
from cp_vision.anatomy.default_pools import default_pools, is_read_by_token
from cp_vision.models.build import check_base
from cp_vision.shared.errors import UserError, listed
from cp_vision.shared.on_meta import on_meta
from cp_vision.surgery.insert_pools import check_pool_options

from ..config.space_options import SpaceOptions, matching
from ..types import BlockCost, Measure, PartCosts
from .latency import Latency
from .space import Space

__all__ = ["measure_space"]

_MOST_COMBINATIONS = 64


def measure_space(
    base: Architecture,
    input_size: tuple[int, int, int],
    choices: SpaceOptions | None = None,
    measures: Sequence[Measure] = ("macs", "params"),
    compiled: bool = False,
    known: Space | None = None,
) -> Space:
    """Count the cost of every block and pool of a base.

    Args:
        base: the base, without pools and drops.
        input_size: (channels, height, width) of the images in pixels.
        choices: what may be chosen; None is the defaults.
        measures: what to count beside MACs; ``latency`` is measured on this device, with weights at random.
        compiled: measure the latency of what torch.compile makes.
        known: the space of an earlier run of the same search, whose latencies are taken in place of measuring.

    Returns:
        The space, without budgets.

    Raises:
        UserError: a base that is unknown or not supported or doesn't run on this size, wrong pool options, choices
            that the base doesn't have, more combinations of settings than can be counted.
        TypeError: as :meth:`cp_vision.Architecture.build`.
        RuntimeError: as :meth:`cp_vision.Architecture.build`.
    """
    choices = choices or SpaceOptions()
    check_base(base.base)
    if "latency" not in measures:
        # What only counts gives the same each time, as long as the name builds the same model.
        return _counted_space(base.to_json(), input_size, choices.model_dump_json(), model_entrypoint(base.base))
    return _measure(base, input_size, choices, compiled, known)


@functools.lru_cache(maxsize=64)
def _counted_space(base: str, input_size: tuple[int, int, int], choices: str, builder: Callable[..., Any]) -> Space:
    return _measure(Architecture.from_json(base), input_size, SpaceOptions.model_validate_json(choices))


def _measure(
    base: Architecture,
    input_size: tuple[int, int, int],
    choices: SpaceOptions,
    compiled: bool | None = None,
    known: Space | None = None,
) -> Space:
    """The space; latencies are measured, or taken from one that is known, unless ``compiled`` is None."""
    settings = _settings(base, choices)
    check_pool_options(base.pool_options)
    # Every combination of settings, that of the base first.
    combined = list(itertools.product(*(values for values in settings.values() if len(values) > 1)))
    if len(combined) > _MOST_COMBINATIONS:
        raise UserError(
            f"space: modes, support_range and img_size have {len(combined)} combinations; at most "
            f"{_MOST_COMBINATIONS} can be counted, name fewer"
        )
    open_settings = {name: values for name, values in settings.items() if len(values) > 1}
    options = dict(base.pool_options)
    options |= {name: values[0] for name, values in settings.items() if len(values) == 1 and name != "img_size"}
    base = dataclasses.replace(base, pool_options=options)
    with on_meta():
        plain = base.build()
    fixed_grid = hasattr(plain, "set_input_size")
    costs: dict[tuple[Any, ...], dict[Measure, PartCosts]] = {}
    blocks: tuple[BlockCost, ...] = ()
    for values in combined:
        chosen = dict(zip(open_settings, values, strict=True))
        size = chosen.pop("img_size", settings["img_size"][0] if "img_size" in settings else None)
        pixels = input_size if size is None else (input_size[0], size, size)
        own_args = {"img_size": size} if fixed_grid and size is not None else {}
        variant = dataclasses.replace(
            base, pool_options={**base.pool_options, **chosen}, model_args={**base.model_args, **own_args}
        )
        counted = _Counted(variant, pixels, choices)
        found = counted.costs()
        if compiled is not None:
            latency, macs = _latency(known, values), found["macs"]
            # Not those of another base, whose search came to nothing.
            if latency is not None and (latency.own.keys(), latency.pool.keys()) == (macs.own.keys(), macs.pool.keys()):
                found["latency"] = latency
            else:
                found["latency"] = Latency(variant, pixels, counted.sites, counted.pools, compiled).costs()
        costs[values] = found
        # The base has the first of each setting.
        blocks = blocks or counted.blocks()
    if len(settings.get("img_size", ())) == 1 and fixed_grid:
        base = dataclasses.replace(base, model_args={**base.model_args, "img_size": settings["img_size"][0]})
    return Space(
        base,
        blocks,
        open_settings,
        costs,
        max_pools=choices.max_pools,
        max_drops=choices.max_drops,
        fixed_grid=fixed_grid,
        by_token=is_read_by_token(plain),
    )


def _latency(known: Space | None, values: tuple[Any, ...]) -> PartCosts | None:
    return None if known is None else known.costs.get(values, {}).get("latency")


def _settings(base: Architecture, choices: SpaceOptions) -> dict[str, tuple[Any, ...]]:
    given = {"mode": choices.modes, "support_range": choices.support_range, "img_size": choices.img_size}
    for name in ("mode", "support_range"):
        if given[name] and name in base.pool_options:
            raise UserError(f"{name} is given as a pool option and by the space; give it once")
    return {name: tuple(values) for name, values in given.items() if values}


class _Counted:
    """A base with a pool at every site that may have one, on no device."""

    def __init__(self, base: Architecture, input_size: tuple[int, int, int], choices: SpaceOptions) -> None:
        self.base, self.input_size = base, input_size
        with on_meta():
            self.plain = base.build()
        try:
            sites = find_sites(self.plain, input_size)
        except RuntimeError as error:
            raise UserError(f"{base.base}: {error}") from error
        blocks = [site for site in sites if site.kind == "block"]
        if not blocks:
            raise UserError(f"{base.base} has no blocks with {dict(base.model_args)}; take a deeper one")
        names = [site.name for site in sites]
        # One set of sites for all modes.
        modes = choices.modes or [base.pool_options.get("mode", "gated")]
        default = default_pools(self.plain, "pre_attn" if "pre_attn" in modes else "gated")
        self.pooled = default if choices.pools is None else matching(choices.pools, names, "pools")
        droppable = [site.name for site in blocks if site.droppable]
        if choices.drops is None:
            self.droppable = tuple(droppable)
        else:
            self.droppable = matching(choices.drops, [site.name for site in blocks], "drops")
            # A pattern takes those that can go; what is named alone has to.
            fixed = [name for name in choices.drops if name in self.droppable and name not in droppable]
            if fixed:
                raise UserError(f"space: drops: {listed(fixed)} can't be left out: its output has another shape")
            self.droppable = tuple(name for name in self.droppable if name in droppable)
        # A site that may neither be pooled nor dropped is no choice, but a block of it still costs.
        self.sites = [site for site in sites if site.kind == "block" or site.name in self.pooled]
        with on_meta():
            self.model = base.build()
            insert_pools(self.model, self.pooled, **base.pool_options)
        self.pools: dict[str, tuple[ContextPool2d, Site]] = {
            site.name: (cast(ContextPool2d, self.model.get_submodule(f"{site.name}.context_pool")), site)
            for site in self.sites
            if site.name in self.pooled
        }

    def costs(self) -> dict[Measure, PartCosts]:
        """MACs and parameters of all parts."""
        base_macs = count_macs(self.plain, self.input_size)
        macs = {name: self._pool_macs(pool, site, base_macs) for name, (pool, site) in self.pools.items()}
        none = dict.fromkeys((site.name for site in self.sites), 0.0)
        own = {site.name: float(site.macs) if site.kind == "block" else 0.0 for site in self.sites}
        own_params = {
            site.name: float(_params(self.plain.get_submodule(site.name))) if site.kind == "block" else 0.0
            for site in self.sites
        }
        pool_params = {name: float(_params(pool)) for name, (pool, _) in self.pools.items()}
        return {
            "macs": PartCosts(float(base_macs), own, {**none, **macs}),
            "params": PartCosts(float(_params(self.plain)), own_params, {**none, **pool_params}),
        }

    def blocks(self) -> tuple[BlockCost, ...]:
        """The sites as they are shown."""
        parts = self.costs()["macs"]
        return tuple(
            BlockCost(
                site.name,
                int(parts.own[site.name]),
                int(parts.pool[site.name]),
                site.name in self.droppable,
                site.name in self.pooled,
            )
            for site in self.sites
        )

    def _pool_macs(self, pool: ContextPool2d, site: Site, base_macs: int) -> float:
        if site.kind == "block":
            return float(pool_macs(pool, site.grid))
        # A strided pool changes what the block after it costs.
        with on_meta():
            model = insert_pools(self.base.build(), [site.name], **self.base.pool_options)
        return float(count_macs(model, self.input_size) - base_macs)


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
