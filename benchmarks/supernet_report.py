"""The report of ``benchmarks/supernet.py``."""

from __future__ import annotations

import datetime
import itertools
import statistics
from collections.abc import Sequence

import timm
import torch

from cp_vision import Architecture
from cp_vision.search.context import SearchContext
from cp_vision.search.outputs.agreement import kendall_tau

__all__ = ["describe"]

Figures = dict[int, list[tuple[float, float]]]
"""By seed: accuracy in percent and seconds of each candidate."""


def describe(
    search: SearchContext,
    arguments: str,
    tried: list[Architecture],
    alone: Figures,
    shared: Figures,
    training: dict[int, float],
) -> str:
    """The report.

    Args:
        search: the space and its settings.
        arguments: of the command line.
        tried: the candidates.
        alone: of each trained alone, with two seeds.
        shared: of each scored with shared weights.
        training: seconds of training these, by seed.
    """
    config, space = search.config, search.space
    macs = [space.macs(space.choice(one.pools, one.drops)) / space.base_macs for one in tried]
    kept = [len(space.names) - len(one.drops) for one in tried]
    rows: dict[str, list[str]] = {}
    for seed, other in zip(alone, reversed(alone), strict=True):
        own, scores, again = (_accuracies(figures) for figures in (alone[seed], shared[seed], alone[other]))
        best = sorted(range(len(tried)), key=lambda i: -scores[i])[: config.finalists]
        cost, whole = training[seed] + _seconds(shared[seed]), _seconds(alone[seed])
        found = {
            "**Kendall's tau of shared weights and own trainings**": f"**{_tau(scores, own)}**",
            "tau of own trainings with the other seed and these": _tau(again, own),
            "tau of MACs and own trainings": _tau(macs, own),
            "equally many blocks: shared weights": _tau_within(kept, scores, own),
            "equally many blocks: own trainings with the other seed": _tau_within(kept, again, own),
            "equally many blocks: MACs": _tau_within(kept, macs, own),
            "seconds: training shared weights, scoring all": f"{training[seed]:.0f} + {_seconds(shared[seed]):.0f}",
            "seconds: training every candidate alone": f"{whole:.0f}",
            "**share of that cost**": f"**{cost / whole:.3f}**",
            "best own training": f"{max(own):.2f} %",
            f"best own training of the {len(best)} that score highest": f"{max(own[i] for i in best):.2f} %",
            "own trainings, median": f"{statistics.median(own):.2f} %",
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    lines = [
        f"Made by `python benchmarks/supernet.py --data-dir DIR {arguments}` on {datetime.date.today():%d %B %Y}, "
        f"torch {torch.__version__}, timm {timm.__version__}, one thread. Seconds are of that thread's processor time.",
        "",
        f"Fashion-MNIST, {len(search.train_set):,} images to train on, {len(search.held_out):,} to "
        f"compare on; `{config.base}` with {config.model_kwargs}, pools with {config.pool_options}; recipe "
        f"`{config.recipe}` with {', '.join(config.overrides)}; shared weights {config.supernet_epochs} epochs. "
        f"{len(tried)} candidates within {config.budget_text} of the base's MACs, the base and some that only drop "
        "among them.",
        "",
        "| | " + " | ".join(f"seed {seed}" for seed in alone) + " |",
        "|---" * (1 + len(alone)) + "|",
        *(f"| {name} | {' | '.join(values)} |" for name, values in rows.items()),
        "",
        "How many blocks a candidate keeps decides most of the order in this space, and MACs tell that for nothing. "
        '"Equally many blocks" is what is left: pairs that differ in what is pooled and in which blocks stay alone, '
        "those in the same order less those in the other, as a share of both.",
        "",
        "A row for each candidate, the best mean first. Of its blocks, from the first: K is kept, P kept and pooled "
        "after, - left out. Accuracies in percent.",
        "",
        "| blocks | MACs | " + " | ".join(f"alone, {s} | shared, {s}" for s in alone) + " | alone, s |",
        "|---" * (3 + 2 * len(alone)) + "|",
    ]
    for i in sorted(range(len(tried)), key=lambda i: -sum(alone[seed][i][0] for seed in alone)):
        pools, drops = tried[i].pools, tried[i].drops
        blocks = "".join("P" if n in pools else "-" if n in drops else "K" for n in space.names)
        pairs = " | ".join(f"{alone[seed][i][0]:.2f} | {shared[seed][i][0]:.2f}" for seed in alone)
        seconds = statistics.mean(alone[seed][i][1] for seed in alone)
        lines.append(f"| {blocks} | {macs[i]:.3f}x | {pairs} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def _accuracies(figures: list[tuple[float, float]]) -> list[float]:
    return [accuracy for accuracy, _ in figures]


def _seconds(figures: list[tuple[float, float]]) -> float:
    return sum(seconds for _, seconds in figures)


def _tau(one: Sequence[float], other: Sequence[float]) -> str:
    tau = kendall_tau(list(zip(one, other, strict=True)))
    return "none" if tau is None else f"{tau:.2f}"


def _tau_within(groups: Sequence[int], one: Sequence[float], other: Sequence[float]) -> str:
    """Pairs of a group in the same order, less those in the other order, as a share of both."""
    signs = [
        (one[i] - one[j]) * (other[i] - other[j])
        for i, j in itertools.combinations(range(len(groups)), 2)
        if groups[i] == groups[j]
    ]
    more, less = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
    return f"{(more - less) / max(1, more + less):.2f}"
