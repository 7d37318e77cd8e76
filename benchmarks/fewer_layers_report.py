"""The report of ``benchmarks/fewer_layers.py``: tables, learning curves, accuracy against cost."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.fewer_layers_cases import FAMILIES, SEEDS, Family, build
from benchmarks.fewer_layers_learned import learned_table
from benchmarks.measure import median_times
from cp_vision import count_macs
from cp_vision.shared.files import write_text

__all__ = ["write_report"]

Rows = Sequence[Mapping[str, str]]
# Accuracy in percent by seed.
Scores = Mapping[int, float]
PLAIN, FEWER, LONG = "plain", "plain, fewer layers", ", twice as long"
LONGER = PLAIN + LONG
POOLED = ("gated", "replace", "pre_attn", "before", "in place")


def write_report(rows: Rows, output: Path) -> None:
    """Write ``fewer_layers.md``, and ``fewer_layers_<family>.svg``, from the trainings that there are.

    Args:
        rows: lines of the table of trainings.
        output: folder.
    """
    torch.set_num_threads(1)
    wanted = sum(variant.most for family in FAMILIES.values() for variant in family.variants.values())
    dates, versions = sorted({row["date"] for row in rows}), sorted({row["torch"] for row in rows})
    lines = [
        "# Do context pools make up for layers?",
        "",
        f"{len(rows)} of {wanted} trainings of `python benchmarks/fewer_layers.py --data-dir DIR`, "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, torch {', '.join(versions)}; the report of "
        "`... --report`. Fashion-MNIST, all 60,000 images; test accuracy "
        "after the last epoch, mean and standard deviation over seeds. Each model of a family is trained from scratch "
        "by the same recipe. Images a second: forward passes of 64 on one thread, all models in turn, medians.",
    ]
    for name, family in FAMILIES.items():
        own = [row for row in rows if row["family"] == name]
        if own:
            lines += _section(name, family, own)
            _draw(name, family, own, output / f"fewer_layers_{name}.svg")
    write_text(output / "fewer_layers.md", "\n".join(lines) + "\n")


def _section(name: str, family: Family, rows: Rows) -> list[str]:
    scores = _scores(family, rows)
    speeds = _speeds(family, [variant for variant in scores if family.variants[variant].epochs == 1])
    macs = {variant: _macs(family, variant) for variant in scores}
    whole = _macs(family, PLAIN)
    lines = [
        "",
        f"## {name}: `{family.base}` with {_arguments(family.full)}, or {_arguments(family.fewer)}",
        "",
        f"Recipe `fashion_mnist` with {', '.join(family.settings)}, images of {family.size} x {family.size}.",
        "",
        f"![learning curves, and accuracy against MACs](fewer_layers_{name}.svg)",
        "",
        "| model | seeds | test accuracy, % | MACs | | parameters | images/s | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, found in scores.items():
        model = build(family, family.variants[variant])
        speed = speeds.get(variant)
        shown = f"{speed:.0f} | {speed / speeds[PLAIN]:.2f}x" if speed and PLAIN in speeds else " | "
        lines.append(
            f"| {variant} | {len(found)} | {_spread(found.values())} | {macs[variant] / 1e6:.2f} M | "
            f"{macs[variant] / whole:.3f}x | {sum(p.numel() for p in model.parameters()):,} | {shown} |"
        )
    shares = {variant: count / whole for variant, count in macs.items()}
    thorough = {v: scores[v] for v in scores if family.variants[v].most > 1 and family.variants[v].epochs == 1}
    targets = _targets(thorough, shares)
    return [*lines, "", *learned_table(family, rows), *targets, *(_longer(scores) if targets else ())]


def _targets(scores: Mapping[str, Scores], shares: Mapping[str, float]) -> list[str]:
    """What the means over the seeds of both sides say about the two questions."""
    if PLAIN not in scores or FEWER not in scores:
        return []
    all_pooled = [v for v in scores if v.startswith(POOLED) and "average" not in v]
    pooled = [v for v in all_pooled if shares[v] <= 0.7]
    if not pooled:
        return []

    def gain(variant: str, other: str) -> float:
        return statistics.mean(_gains(scores[variant], scores[other]))

    best = max(pooled, key=lambda v: gain(v, PLAIN))
    seeds = min(len(scores[v]) for v in (best, PLAIN, FEWER))
    spreads = [statistics.stdev(scores[v].values()) for v in (best, FEWER) if len(scores[v]) > 1]
    deviation = max(spreads, default=0.0)
    known = f"{deviation:.2f}" if spreads else "unknown"

    def judged(yes: bool) -> str:
        return f"open: {seeds} of {SEEDS} seeds" if seeds < SEEDS else "reached" if yes else "not reached"

    lines = [
        f"Best of the pooled within 0.7x, which is {len(pooled)} chances: {best}, {shares[best]:.3f}x. Models of one "
        "seed see the same batches, so differences are taken seed by seed: their mean and standard deviation.",
        "",
        "| | measured | |",
        "|---|---|---|",
        f"| no worse than plain with all layers | {_shown(scores[best], scores[PLAIN])} | "
        f"{judged(gain(best, PLAIN) >= 0)} |",
        f"| better than plain with as many layers, by more than the larger deviation ({known}) | "
        f"{_shown(scores[best], scores[FEWER])} | {judged(gain(best, FEWER) > deviation)} |",
    ]
    dearer = max(set(all_pooled) - set(pooled), key=lambda v: gain(v, PLAIN), default=None)
    if dearer is not None:
        lines.append(
            f"| over 0.7x: {dearer}, {shares[dearer]:.3f}x, against plain with all layers | "
            f"{_shown(scores[dearer], scores[PLAIN])} | {len(scores[dearer])} of {SEEDS} seeds |"
        )
    return lines


def _longer(scores: Mapping[str, Scores]) -> list[str]:
    """Whether twice the epochs change the picture: what plain gains, and how far the others are from it then."""
    if LONGER not in scores:
        return []
    longer = [variant for variant in scores if variant.endswith(LONG) and variant != LONGER]
    compared = [
        ("what plain gains by twice the epochs", LONGER, PLAIN),
        *((f"{variant}, against plain", variant, LONGER) for variant in longer),
        *((f"{variant}, against fewer layers", variant, FEWER + LONG) for variant in longer if variant != FEWER + LONG),
    ]
    return [
        f"| {text} | {_shown(scores[one], scores[other])} | {len(scores[one])} seeds |"
        for text, one, other in compared
        if other in scores
    ]


def _gains(one: Scores, other: Scores) -> list[float]:
    """Differences of the seeds that both have."""
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def _shown(one: Scores, other: Scores) -> str:
    found = _gains(one, other)
    spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):+.2f}{spread} points"


def _scores(family: Family, rows: Rows) -> dict[str, Scores]:
    """Accuracies of each model that was trained, in the order of the cases."""
    found = {
        v: {int(row["seed"]): float(row["accuracy"]) for row in rows if row["variant"] == v} for v in family.variants
    }
    return {variant: values for variant, values in found.items() if values}


def _spread(values: Collection[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in values.items())


def _macs(family: Family, variant: str) -> int:
    return count_macs(build(family, family.variants[variant]), (1, family.size, family.size))


def _speeds(family: Family, variants: Sequence[str]) -> dict[str, float]:
    images = torch.randn(64, 1, family.size, family.size)
    models = {variant: build(family, family.variants[variant]).eval() for variant in variants}
    with torch.inference_mode():
        times = median_times({name: lambda model=model: model(images) for name, model in models.items()}, 15, 60)
    return {name: 64 / seconds for name, seconds in times.items()}


def _draw(name: str, family: Family, rows: Rows, path: Path) -> None:
    """Learning curves, means over seeds, and accuracy against MACs with the spread."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # No date, and the same names of parts each time, so that the same figures give the same file.
    plt.rcParams["svg.hashsalt"] = "cp-vision"
    figure, (curves, costs) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    whole, lowest = _macs(family, PLAIN), 100.0
    for number, (variant, found) in enumerate(_scores(family, rows).items()):
        colour, marker = plt.cm.tab20(2 * number % 20 + number // 10 % 2), "osD^vPX*"[number % 8]
        lines = [[float(v) for v in row["curve"].split()] for row in rows if row["variant"] == variant]
        means = [statistics.mean(values) for values in zip(*lines, strict=True)]
        curves.plot(range(1, len(means) + 1), means, color=colour, label=variant, lw=1.4)
        lowest = min(lowest, *means[len(means) // 3 :])
        deviation = statistics.stdev(found.values()) if len(found) > 1 else 0.0
        share = _macs(family, variant) / whole
        costs.errorbar(
            share, statistics.mean(found.values()), deviation, color=colour, marker=marker, capsize=3, label=variant
        )
    curves.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(lowest - 0.3, None), title="learning curves")
    costs.set(xlabel="MACs, share of the plain model's", ylabel="test accuracy, %", title="after the last epoch")
    for axes in (curves, costs):
        axes.grid(alpha=0.25)
    costs.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.suptitle(f"{name}: Fashion-MNIST, mean over seeds")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
