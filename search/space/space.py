"""The search space: for each site keep, pool or drop, what all pools are like, and what each choice costs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cp_vision import Architecture

from ..types import BlockCost, Limit, Measure, PartCosts

__all__ = ["DROP", "KEEP", "POOL", "SETTINGS", "Genotype", "GenotypeKey", "Space", "genotype_key"]

KEEP, POOL, DROP = "keep", "pool", "drop"
SETTINGS = ("mode", "support_range", "img_size")
"""What may be chosen once for a whole candidate."""

Genotype = Mapping[str, Any]
"""What becomes of each site, by name: ``"keep"``, ``"pool"`` or ``"drop"``; and the settings of the candidate."""

GenotypeKey = tuple[tuple[str, Any], ...]


def genotype_key(choice: Genotype) -> GenotypeKey:
    """A hashable value that is equal for equal choices."""
    return tuple(sorted(choice.items()))


@dataclass(frozen=True)
class Space:
    """Sites of a base with their costs, counted once.

    Attributes:
        base: the base without pools and drops; its pool options are those of every candidate.
        blocks: its sites in order.
        settings: what else may be chosen, with the allowed values; the base has the first of each.
        costs: for each combination of settings, the costs in each measure: MACs for one image, parameters,
            milliseconds for one image.
        limits: the budgets.
        max_pools: the most pools of a candidate; None for no limit.
        max_drops: the most blocks that a candidate leaves out.
        fixed_grid: whether the image size is an argument of the model.
        by_token: whether of what the last block gives the class token alone is looked at, which isn't pooled.
        names: names of the sites.
    """

    base: Architecture
    blocks: tuple[BlockCost, ...]
    settings: Mapping[str, tuple[Any, ...]]
    costs: Mapping[tuple[Any, ...], Mapping[Measure, PartCosts]]
    limits: tuple[Limit, ...] = ()
    max_pools: int | None = None
    max_drops: int | None = None
    fixed_grid: bool = False
    by_token: bool = False
    names: tuple[str, ...] = field(init=False)
    _changes: dict[tuple[Any, ...], dict[Measure, list[dict[str, float]]]] = field(
        init=False, repr=False, compare=False
    )
    _allowed: dict[str, set[str]] = field(init=False, repr=False, compare=False)
    _real: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(block.name for block in self.blocks))
        # What every choice at every site changes, looked up a few times for each proposal.
        changes = {
            values: {
                measure: [{KEEP: 0.0, DROP: -parts.own[name], POOL: parts.pool[name]} for name in self.names]
                for measure, parts in costs.items()
            }
            for values, costs in self.costs.items()
        }
        object.__setattr__(self, "_changes", changes)
        allowed = {
            POOL: {b.name for b in self.blocks if b.poolable},
            DROP: {b.name for b in self.blocks if b.droppable},
        }
        object.__setattr__(self, "_allowed", allowed)
        object.__setattr__(self, "_real", sum(block.macs > 0 for block in self.blocks))

    @property
    def base_costs(self) -> dict[Measure, float]:
        """What the base costs, by measure; units as in ``costs``."""
        first = next(iter(self.costs.values()))
        return {measure: parts.base for measure, parts in first.items()}

    @property
    def measure(self) -> Measure:
        """What counts as cost where one figure must: that of the first budget, MACs where there is none."""
        return self.limits[0].measure if self.limits else "macs"

    @property
    def base_macs(self) -> int:
        """Cost of the base in MACs for one image."""
        return int(self.base_costs["macs"])

    def cost(self, choice: Genotype, measure: Measure = "macs") -> float:
        """Cost of a candidate: the base's, less the dropped blocks, plus the pools.

        Args:
            choice: the candidate.
            measure: of what; the unit is as in ``costs``.

        Raises:
            KeyError: the choice lacks a site or setting or has an unknown value, or the measure was not counted.
        """
        settings = tuple([choice[name] for name in self.settings])
        changes = self._changes[settings][measure]
        total = self.costs[settings][measure].base
        for name, change in zip(self.names, changes, strict=True):
            total += change[choice[name]]
        return total

    def macs(self, choice: Genotype) -> int:
        """Cost of a candidate in MACs for one image; raises as :meth:`cost`."""
        return int(self.cost(choice))

    def constraints(self, choice: Genotype) -> dict[str, float]:
        """How far a candidate is over each budget, as a share of it; with one above 0 it must not be built.

        Beside the budgets: ``blocks`` is 1 where no block stays, ``pools`` and ``drops`` are how many there are above
        the most. Raises as :meth:`cost`.
        """
        found: dict[str, float] = {
            limit.measure: self.cost(choice, limit.measure) / limit.most - 1 for limit in self.limits
        }
        values = [choice[name] for name in self.names]
        drops, pools = values.count(DROP), values.count(POOL)
        # One block at least stays. Samplers want the same constraints for all.
        found["blocks"] = 1.0 if drops and drops == self._real else 0.0
        if self.max_pools is not None:
            found["pools"] = float(pools - self.max_pools)
        if self.max_drops is not None:
            found["drops"] = float(drops - self.max_drops)
        return found

    def excess(self, choice: Genotype) -> float:
        """The worst of a candidate's constraints; above 0 means that it must not be built."""
        return max(self.constraints(choice).values(), default=0.0)

    def least(self, measure: Measure) -> float:
        """The least cost that can be reached: what can be left out is, but for one block, and pools where they save.

        Args:
            measure: of what; the unit is as in ``costs``.

        Raises:
            KeyError: the measure was not counted.
        """
        least = math.inf
        for costs in self.costs.values():
            parts = costs[measure]
            saved = sorted((parts.own[b.name] for b in self.blocks if b.droppable), reverse=True)
            most = len(saved) if self.max_drops is None else min(len(saved), self.max_drops)
            if most == self._real:
                most -= 1
            pools = sorted(min(0.0, parts.pool[b.name]) for b in self.blocks if b.poolable and not b.droppable)
            least = min(least, parts.base - sum(saved[:most]) + sum(pools[: self.max_pools]))
        return least

    def most(self, measure: Measure) -> float:
        """The most that a candidate may cost where no budget bounds it: nothing dropped, pools wherever they may be.

        Args:
            measure: of what; the unit is as in ``costs``.

        Raises:
            KeyError: the measure was not counted.
        """
        most = 0.0
        for costs in self.costs.values():
            parts = costs[measure]
            pools = sorted((max(0.0, parts.pool[b.name]) for b in self.blocks if b.poolable), reverse=True)
            most = max(most, parts.base + sum(pools[: self.max_pools]))
        return most

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """What may become of each site, and the settings. A pool that alone would break a budget is no choice."""
        allowed: dict[str, tuple[Any, ...]] = {}
        for block in self.blocks:
            choices = [KEEP]
            affordable = all(
                min(self.least(limit.measure) + costs[limit.measure].pool[block.name] for costs in self.costs.values())
                <= limit.most
                for limit in self.limits
            )
            if block.poolable and affordable:
                choices.append(POOL)
            if block.droppable:
                choices.append(DROP)
            allowed[block.name] = tuple(choices)
        return {**allowed, **self.settings}

    def choice(self, pools: Iterable[str] = (), drops: Iterable[str] = (), **settings: Any) -> dict[str, Any]:
        """The choice that pools and drops these sites and keeps the others; settings are the base's, or as named.

        Args:
            pools: sites to pool at.
            drops: blocks to leave out.
            settings: values of ``mode``, ``support_range`` and ``img_size``, as far as the space has them.

        Raises:
            ValueError: a name that is no site or setting of this space, or what the space doesn't allow there.
        """
        pools, drops = set(pools), set(drops)
        for kind, named, known in (("site", pools | drops, self.names), ("setting", set(settings), self.settings)):
            if unknown := sorted(named.difference(known)):
                raise ValueError(f"no {kind} of this space: {', '.join(unknown)}; it has {', '.join(known)}")
        if both := sorted(pools & drops):
            raise ValueError(f"{', '.join(both)} can't be pooled and dropped at once")
        for what, named in ((POOL, pools), (DROP, drops)):
            if wrong := sorted(named - self._allowed[what]):
                raise ValueError(f"this space doesn't {what} {', '.join(wrong)}")
        for name, value in settings.items():
            if value not in self.settings[name]:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(map(str, self.settings[name]))}")
        chosen: dict[str, Any] = {b: POOL if b in pools else DROP if b in drops else KEEP for b in self.names}
        return {**chosen, **{name: settings.get(name, values[0]) for name, values in self.settings.items()}}

    def normal(self, choice: Genotype) -> dict[str, Any]:
        """The choice that gives the same model at the least cost; raises as :meth:`cost`.

        It has no pool that nothing looks at, and without pools the first mode and range of supports.
        """
        normal = dict(choice)
        last = next((name for name in reversed(self.names) if choice[name] != DROP), None)
        mode = choice.get("mode", self.base.pool_options.get("mode"))
        if self.by_token and last is not None and choice[last] == POOL and mode != "pre_attn":
            normal[last] = KEEP
        if POOL not in (normal[name] for name in self.names):
            for name in ("mode", "support_range"):
                if name in self.settings:
                    normal[name] = self.settings[name][0]
        return normal

    def architecture(self, choice: Genotype) -> Architecture:
        """The architecture of a choice; raises as :meth:`cost`."""
        pools = tuple(name for name in self.names if choice[name] == POOL)
        drops = tuple(name for name in self.names if choice[name] == DROP)
        options, args = dict(self.base.pool_options), dict(self.base.model_args)
        if pools:
            options |= {name: choice[name] for name in ("mode", "support_range") if name in self.settings}
        if self.fixed_grid and "img_size" in self.settings:
            args["img_size"] = choice["img_size"]
        return Architecture(self.base.base, pools, drops, options, args)

    def img_size(self, choice: Genotype) -> int | None:
        """Side of a candidate's images in pixels, None where it is the recipe's."""
        size: int | None = choice.get("img_size")
        return size

    def to_json(self) -> str:
        """One line of JSON; figures are kept exactly."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.init}
        values |= {
            "base": dataclasses.asdict(self.base),
            "blocks": [dataclasses.asdict(block) for block in self.blocks],
            "limits": [dataclasses.asdict(limit) for limit in self.limits],
            "costs": [
                [combination, {measure: dataclasses.asdict(parts) for measure, parts in costs.items()}]
                for combination, costs in self.costs.items()
            ],
        }
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Space:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: not JSON, or the base is none.
            KeyError: a field is missing.
            TypeError: a field that a space, or a part of it, doesn't have.
        """
        values = json.loads(text)
        return cls(
            **values
            | {
                "base": Architecture(**values["base"]),
                "blocks": tuple(BlockCost(**block) for block in values["blocks"]),
                "settings": {name: tuple(allowed) for name, allowed in values["settings"].items()},
                "limits": tuple(Limit(**limit) for limit in values["limits"]),
                "costs": {
                    tuple(combination): {measure: PartCosts(**parts) for measure, parts in costs.items()}
                    for combination, costs in values["costs"]
                },
            }
        )
