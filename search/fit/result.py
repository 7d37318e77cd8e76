"""What compressing a model gave; printed, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timm.models import save_for_hf
from torch import nn

from cp_vision import Architecture, UserError

from ..types import Measure
from .accuracy import Accuracy
from .budget import cost_in_words
from .option import Candidate, Option, describe
from .scores import Scores
from .throughput import rate_in_words

__all__ = ["Compressed", "Outcome", "Point"]


@dataclass(frozen=True)
class Outcome:
    """A model under a budget.

    Attributes:
        name: of what it may be made: ``"best"``, ``"no pools"``, ``"drop only"``.
        candidate: what is changed.
        costs: of the model: MACs of one image, parameters, and nanoseconds of one image where budgets are latencies.
        score: on held-out images; lower is better.
        refitted: whether its stand-ins are those fitted front to back, which are kept where they are better.
        epochs: of distillation, after which it was best; 0 where it wasn't trained, or was better before.
        accuracy: where there was something to evaluate it with.
        before: the same before distillation; None where there was none.
        rates: images a second by batch size, where they were measured.
    """

    name: str
    candidate: Candidate
    costs: Mapping[Measure, int]
    score: float
    refitted: bool
    epochs: int = 0
    accuracy: Accuracy | None = None
    before: Outcome | None = None
    rates: Mapping[int, float] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """MACs of one image."""
        return self.costs["macs"]


@dataclass(frozen=True)
class Point:
    """What was found for one budget.

    Attributes:
        budget: as it was given.
        measure: what it is of.
        limit: in MACs, parameters or nanoseconds.
        model: the best one, in eval mode.
        best: what it is.
        counterparts: the best ones without pools, and of dropped blocks alone, where the budget can be
            met so, by name.
        architecture: of the model; None where the base is none of timm's.
    """

    budget: str
    measure: Measure
    limit: int
    model: nn.Module
    best: Outcome
    counterparts: Mapping[str, Outcome]
    architecture: Architecture | None

    @property
    def pools_add(self) -> Accuracy | None:
        """What the best model's accuracy has over that without pools; None where one of them has none."""
        plain = self.counterparts.get("no pools")
        if self.best.accuracy is None or plain is None or plain.accuracy is None:
            return None
        return self.best.accuracy.over(plain.accuracy)

    def save(self, folder: str | Path) -> None:
        """Write the model as a folder that ``timm.create_model("local-dir:...", pretrained=True)`` loads.

        Raises:
            UserError: the base is none of timm's.
        """
        if self.architecture is None:
            raise UserError("the base is none of timm's; save its state dict, and apply the same changes to load it")
        save_for_hf(self.model, str(folder), safe_serialization=True)


@dataclass(frozen=True)
class Compressed:
    """What :func:`compress` found; printed, a table of budgets and counterparts.

    Attributes:
        base: name of the base.
        base_costs: its MACs of one image, parameters, and nanoseconds of one image where budgets are latencies.
        base_accuracy: where there was something to evaluate it with.
        measure: what scores are: ``"KL"`` in nats, ``"distance"`` of features, or the user's ``"score"``.
        images: how many there were.
        held_out: how many of these scores are of.
        points: one for each budget, in the given order.
        options: everything that was fitted, with its score alone.
        blocks: paths of the base's blocks.
        seconds: spent, by step.
        base_rates: images a second of the base by batch size, where they were measured.
        scores: what may be kept as a file, and be given to a search of the same base; None where no budget is done.
    """

    base: str
    base_costs: Mapping[Measure, int]
    base_accuracy: Accuracy | None
    measure: str
    images: int
    held_out: int
    points: tuple[Point, ...]
    options: tuple[Option, ...] = field(repr=False)
    blocks: tuple[str, ...] = field(repr=False)
    seconds: Mapping[str, float]
    base_rates: Mapping[int, float] = field(default_factory=dict)
    scores: Scores | None = field(default=None, repr=False)

    @property
    def base_macs(self) -> int:
        """The base's MACs of one image."""
        return self.base_costs["macs"]

    @property
    def model(self) -> nn.Module:
        """The model, of a single budget."""
        return self._only().model

    @property
    def architecture(self) -> Architecture | None:
        """The architecture, of a single budget."""
        return self._only().architecture

    def __getitem__(self, budget: str) -> Point:
        for point in self.points:
            if point.budget == budget:
                return point
        raise KeyError(f"{budget!r}: budgets are {', '.join(point.budget for point in self.points)}")

    def _only(self) -> Point:
        if len(self.points) > 1:
            budgets = ", ".join(repr(point.budget) for point in self.points)
            raise UserError(f"there are several models; take one by its budget: result[...] of {budgets}")
        return self.points[0]

    def __str__(self) -> str:
        """A line for each budget and each counterpart, then what the models are made of."""
        cost = self.points[0].measure
        rates = [f"images/s at {size}" for size in self.base_rates]
        rows = [["budget", "", "cost", "of base", self.measure, "accuracy", *rates]]
        own = "" if self.base_accuracy is None else str(self.base_accuracy)
        of_base = [rate_in_words(rate) for rate in self.base_rates.values()]
        rows.append(["", "base", cost_in_words(cost, self.base_costs[cost]), "1.000", "0", own, *of_base])
        for point in self.points:
            for i, outcome in enumerate((point.best, *point.counterparts.values())):
                share = f"{outcome.costs[cost] / self.base_costs[cost]:.3f}"
                accuracy = "" if outcome.accuracy is None else str(outcome.accuracy)
                name = point.budget if i == 0 else ""
                words = cost_in_words(cost, outcome.costs[cost])
                speed = [rate_in_words(rate) for rate in outcome.rates.values()]
                rows.append([name, outcome.name, words, share, f"{outcome.score:.4g}", accuracy, *speed])
        made = [f"{point.budget}: {describe(point.best.candidate)}{_added(point)}" for point in self.points]
        spent = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in self.seconds.items())
        about = f"{self.base}; {self.images} images, {self.held_out} of them held out for {self.measure}; {spent}"
        return "\n".join([about, *_aligned(rows), *made])

    def table(self) -> str:
        """A line for each place: what each kind leaves unexplained, and its score alone."""
        kinds = list(dict.fromkeys(option.kind for option in self.options))
        by_key = {option.key: option for option in self.options}
        rows = [["place", *kinds]]
        for place in dict.fromkeys(option.place for option in self.options):
            rows.append([place, *(_cell(by_key.get(f"{place}|{kind}")) for kind in kinds)])
        return "\n".join([*_aligned(rows), f"unexplained / {self.measure}"])


def _added(point: Point) -> str:
    """What pools add, in words."""
    if point.pools_add is None:
        return ""
    plain = point.counterparts["no pools"]
    if plain.candidate == point.best.candidate:
        return "; no pools, as it did as well without"
    return f"; pools add {point.pools_add}"


def _cell(option: Option | None) -> str:
    if option is None:
        return ""
    return f"{option.score:.3g}" if option.unexplained is None else f"{option.unexplained:.3f} / {option.score:.3g}"


def _aligned(rows: Sequence[Sequence[Any]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
