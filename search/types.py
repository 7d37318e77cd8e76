"""What a search has found: plain values that the CSV, the report and the command line all read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

__all__ = ["BlockCost", "Candidate", "Limit", "Measure", "PartCosts", "Results", "State"]

State = Literal["complete", "stopped", "failed"]
Measure = Literal["macs", "params", "latency"]


@dataclass(frozen=True)
class Limit:
    """One budget.

    Attributes:
        measure: ``macs``, ``params`` or ``latency``.
        text: as the user wrote it (``0.7x``, ``12ms``).
        most: the most that a candidate may cost, in MACs, parameters or milliseconds.
        base: what the base costs, in the same unit.
    """

    measure: Measure
    text: str
    most: float
    base: float


@dataclass(frozen=True)
class BlockCost:
    """One site of the base and what it costs, in MACs for one image.

    Attributes:
        name: module path in the base (``blocks.5``, ``layer3.1``, ``maxpool``).
        macs: cost of the block itself; 0 for a stem or down-sampling, which stays.
        pool_macs: what a pool at that site adds; below 0 where a strided pool makes the block after it cheaper.
        droppable: whether the block may be left out in this search.
        poolable: whether a pool may stand there in this search.
    """

    name: str
    macs: int
    pool_macs: int
    droppable: bool
    poolable: bool = True


@dataclass(frozen=True)
class PartCosts:
    """Cost of a base and of its parts, in one measure: a candidate's cost is a sum of these.

    Attributes:
        base: the whole base.
        own: of each site, what is saved where it is left out.
        pool: of each site, what a pool there adds.
    """

    base: float
    own: Mapping[str, float]
    pool: Mapping[str, float]


@dataclass(frozen=True)
class Candidate:
    """One architecture that was tried.

    Attributes:
        number: its number in the study; the base is number 0.
        pools: sites with a pool.
        drops: blocks left out.
        macs: MACs for one image.
        params: number of parameters.
        accuracy: top-1 on the validation split, percent, as it was scored first; of one that was stopped early that
            at its last epoch; None where it failed.
        state: ``complete``, ``stopped`` (early, as one of the worse) or ``failed``.
        reason: why it failed, in one line, or why a training of its own did after shared weights had scored it.
        seconds: wall time of its training.
        within_budget: whether it keeps every budget; the base may not.
        by_seed: of a finalist, the validation top-1 after a training with each seed, percent; empty for others.
        latency: predicted time of an image in ms, where latency is a budget; the sum over its parts.
        settings: what else was chosen for it: ``mode``, ``support_range``, ``img_size`` (pixels).
    """

    number: int
    pools: tuple[str, ...]
    drops: tuple[str, ...]
    macs: int
    params: int
    accuracy: float | None
    state: State = "complete"
    reason: str = ""
    seconds: float = 0.0
    within_budget: bool = True
    by_seed: Mapping[int, float] = field(default_factory=dict)
    latency: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """Mean validation top-1 over its trainings, percent; None where it is no finalist."""
        return fmean(self.by_seed.values()) if self.by_seed else None

    @property
    def score(self) -> float | None:
        """What it counts for: the mean over its trainings, or else the accuracy; None where it isn't complete."""
        if self.state != "complete":
            return None
        return self.accuracy if self.mean is None else self.mean

    def cost(self, measure: Measure) -> float:
        """Its MACs, parameters, or latency in ms where that is a budget."""
        return {"macs": self.macs, "params": self.params, "latency": self.latency or 0.0}[measure]

    @property
    def is_base(self) -> bool:
        """True for the base itself: no pools, no drops, its own image size."""
        return self.number == 0

    @property
    def drops_only(self) -> bool:
        """True for an architecture that leaves blocks out and pools nowhere."""
        return bool(self.drops) and not self.pools


@dataclass(frozen=True)
class Results:
    """Everything that the report shows.

    Attributes:
        base: timm name of the base model.
        dataset: name of the data set.
        recipe: name of the recipe that trained every candidate.
        command: the command that makes this study again.
        seed: seed of the search.
        budget: the budget as the user wrote it (``0.7x``).
        budget_macs: the budget in MACs for one image; None where MACs have none.
        base_macs: cost of the whole base in MACs for one image.
        blocks: the base's sites in order.
        candidates: every architecture that was tried by number; the base comes first.
        best: number of the winner; None while nothing within the budget is complete.
        best_drops_only: number of the best architecture without pools that leaves blocks out.
        pair: numbers of the winner, or of the best that pools where that doesn't, and of its counterpart without
            pools; None where one of them isn't complete.
        test_accuracy: top-1 on the test split, percent, after a training with each seed, by candidate number; filled
            at the very end, for the winner, the base and the pair alone.
        held_out: number of images that candidates are compared on; None where that isn't known.
        evaluator: ``train``, ``supernet`` or ``sensitivity``.
        limits: every budget.
        keep_accuracy: the winner is the cheapest within so many percent points of the base; None where it is the most
            accurate within the budget.
        importance: share of the differences in accuracy that goes back to each site or setting; sums to 1. By
            PED-ANOVA (Watanabe et al., 2023, arXiv 2304.10255).
        sensitivity: accuracy in percent points that the base loses, untrained, when a block alone is left out.
        measured_latency: time of an image in ms by candidate number, as measured on the whole model.
        agreement: Kendall's tau, from -1 to 1, between accuracies with shared weights and after a training of its own;
            None where there is none.
        commands: other commands to go on with, by what they do.
    """

    base: str
    dataset: str
    recipe: str
    command: str
    seed: int
    budget: str
    budget_macs: int | None
    base_macs: int
    blocks: tuple[BlockCost, ...]
    candidates: tuple[Candidate, ...]
    best: int | None = None
    best_drops_only: int | None = None
    pair: tuple[int, int] | None = None
    test_accuracy: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    held_out: int | None = None
    evaluator: str = "train"
    limits: tuple[Limit, ...] = ()
    keep_accuracy: float | None = None
    importance: Mapping[str, float] = field(default_factory=dict)
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    measured_latency: Mapping[int, float] = field(default_factory=dict)
    agreement: float | None = None
    commands: Mapping[str, str] = field(default_factory=dict)

    @property
    def measure(self) -> Measure:
        """What counts as cost where one figure must: that of the first budget, MACs where there is none."""
        return self.limits[0].measure if self.limits else "macs"

    @cached_property
    def by_seed(self) -> tuple[Mapping[int, float], ...]:
        """Accuracies by seed, percent, of each finalist. Every figure's error is of these: found once, not for each."""
        return tuple(c.by_seed for c in self.candidates if c.by_seed)

    def __str__(self) -> str:
        """A table of the candidates, the most accurate first, then those without an accuracy."""
        roles = {0: "base", self.best_drops_only: "best that only drops", self.best: "winner"}
        known = {c.number: c.accuracy if c.mean is None else c.mean for c in self.candidates}
        order = sorted(
            self.candidates, key=lambda c: (known[c.number] is None, -(known[c.number] or 0.0), c.macs, c.number)
        )
        rows = [("number", "accuracy", "seeds", "MACs", "pools", "drops", "")]
        for c in order:
            accuracy = "-" if known[c.number] is None else f"{known[c.number]:.2f}"
            role = ", ".join([*([c.state] if c.state != "complete" else []), *filter(None, [roles.get(c.number)])])
            share = f"{c.macs / self.base_macs:.3f}x"
            rows.append(
                (
                    str(c.number),
                    accuracy,
                    str(len(c.by_seed) or 1),
                    share,
                    " ".join(c.pools) or "-",
                    " ".join(c.drops) or "-",
                    role,
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )
