"""What ``results.json`` of a search by fits has to hold, for whoever reads it back."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Results"]


class _Strict(BaseModel):
    # Numbers are numbers: a text that could be read as one is none.
    model_config = ConfigDict(strict=True)


class _Accuracy(_Strict):
    value: float
    error: float | None


class _Change(_Strict):
    place: str
    kind: str
    blocks: list[str]


class _Before(_Strict):
    divergence: float
    test_top1: _Accuracy | None


class _Outcome(_Strict):
    made_of: str
    changes: list[_Change]
    costs: dict[str, int]
    share_of_base: float
    divergence: float
    refitted: bool
    distilled_epochs: int
    test_top1: _Accuracy | None
    over_base: _Accuracy | None
    rates: dict[str, float]
    before_distillation: _Before | None


class _Point(_Outcome):
    budget: str
    measure: str
    limit: int
    architecture: dict[str, Any] | None
    pools_add: _Accuracy | None
    counterparts: dict[str, _Outcome]


class _Option(_Strict):
    place: str
    kind: str
    half: str
    blocks: list[str]
    saved: dict[str, int]
    unexplained: float | None
    score: float


class Results(_Strict):
    """The whole; what the functions of ``fit_results`` write."""

    base: str
    dataset: str
    command: str
    test_images: int
    base_costs: dict[str, int]
    base_test_top1: _Accuracy | None
    base_rates: dict[str, float]
    score: str
    images: int
    held_out: int
    blocks: list[str]
    points: list[_Point]
    options: list[_Option]
    seconds: dict[str, float]
