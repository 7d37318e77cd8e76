"""The tables and the plot of ``replacement.py``, from its CSV files."""

from __future__ import annotations

import csv
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

__all__ = ["Row", "draw", "read", "read_csv", "table", "tables"]

Row = dict[str, str]

_HEADS = {
    "lite0": "EfficientNet-Lite0 (ImageNet), solar cells of 160 px",
    "dinov2": "DINOv2 ViT-S/14, solar cells of 112 px",
    "fashion vit": "ViT trained on Fashion-MNIST",
    "fashion resnet": "ResNet trained on Fashion-MNIST",
    "fashion bottlenecks": "ResNet of bottlenecks trained on Fashion-MNIST",
    "elpv_lite0": "EfficientNet-Lite0 fine-tuned on solar cells, 9 of 16 blocks replaced",
    "elpv_dinov2": "DINOv2 ViT-S/14 fine-tuned on solar cells, 6 of 12 blocks replaced",
}


def read(folder: Path, part: str) -> list[Row]:
    """The rows of a part; none where it was not measured."""
    return read_csv(folder / f"replacement_{part}.csv")


def read_csv(path: Path) -> list[Row]:
    """The rows of a file; none where it is missing."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """A table for each network and kind of places: forms by places, what they leave and what they cost."""
    for network, places in dict.fromkeys((row["network"], row["places"]) for row in rows):
        own = [row for row in rows if (row["network"], row["places"]) == (network, places)]
        names = _names(own)
        images, seeds = own[0]["images"], len({row["seed"] for row in own})
        yield f"### {_HEADS.get(network, network)}: {places}\n"
        yield f"{images} images, {seeds} draws of them.\n" if seeds > 1 else f"{images} images.\n"
        columns = [name.removeprefix("blocks.") for name in names]
        yield from table(["", "share of MACs", "mean", "of first row's", *columns], _forms(own, names))


def _forms(own: Sequence[Row], names: Sequence[str]) -> Iterator[list[str]]:
    forms = list(dict.fromkeys(row["form"] for row in own))
    reference = _means(own, forms[0], names)
    for form in forms:
        of_form = [row for row in own if row["form"] == form]
        means = _means(own, form, names)
        macs = statistics.mean(float(row["macs"]) for row in of_form)
        ratios = [mean / before for mean, before in zip(means, reference, strict=True)]
        ratio = f"{statistics.mean(ratios):.3f}" + (f" ± {_error(ratios):.3f}" if len(ratios) > 1 else "")
        cells = [f"{mean:.3f}" for mean in means]
        yield [form, f"{macs:.3f}", f"{statistics.mean(means):.3f}", ratio, *cells]


def _names(own: Sequence[Row]) -> list[str]:
    """Places from input to output."""
    return sorted({row["place"] for row in own}, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])


def _means(own: Sequence[Row], form: str, names: Sequence[str]) -> list[float]:
    """Of each place the mean over draws of images."""
    return [
        statistics.mean(float(row["left"]) for row in own if (row["form"], row["place"]) == (form, name))
        for name in names
    ]


def _error(values: Sequence[float]) -> float:
    """Standard error of a mean."""
    return statistics.stdev(values) / math.sqrt(len(values))


def whole_tables(rows: Sequence[Row]) -> Iterator[str]:
    """A table for each network: what stands in the blocks' places, its KL divergence and accuracy."""
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        yield f"### {_HEADS[network]}\n"
        cells: list[list[str]] = []
        for row in own:
            share, count = float(row["accuracy"]) / 100, int(row["images"])
            error = 100 * math.sqrt(share * (1 - share) / count)
            accuracy = f"{row['accuracy']} ± {error:.1f}"
            shares = [f"{float(row[name]):.3f}" for name in ("macs", "time")]
            cells.append([row["form"], *shares, f"{float(row['kl']):.4f}", accuracy])
        yield from table(
            ["", "MACs", "time", "KL to the base, nats", f"accuracy on {own[0]['images']} test images, %"], cells
        )


def cost_table(rows: Sequence[Row]) -> Iterator[str]:
    """What fitting costs beside evaluating."""
    titles = ["", "evaluation, s of CPU", "fit, s of CPU", "ratio", "evaluation, MiB", "fit, MiB", "ratio"]
    yield from table(titles, (list(row.values()) for row in rows))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def draw(rows: Sequence[Row], path: Path) -> None:
    """What each form leaves, by place, a pane for each network and kind of places."""
    kinds = [kind for kind in dict.fromkeys((row["network"], row["places"]) for row in rows) if "runs" not in kind[1]]
    panes, grid = plt.subplots(len(kinds), 1, figsize=(9, 2.6 * len(kinds)), layout="constrained", squeeze=False)
    for (network, places), axis in zip(kinds, grid[:, 0], strict=True):
        own = [row for row in rows if (row["network"], row["places"]) == (network, places)]
        names = _names(own)
        for form in dict.fromkeys(row["form"] for row in own):
            style: dict[str, Any] = {"linestyle": "-" if "Gaussian" in form else "--"}
            axis.plot(range(len(names)), _means(own, form, names), "o", markersize=3, label=form, **style)
        axis.set(title=f"{network}: {places}", ylabel="left unexplained", ylim=(0, None))
        axis.set_xticks(range(len(names)), [name.removeprefix("blocks.") for name in names], fontsize="small")
        axis.grid(linewidth=0.3)
        axis.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    panes.savefig(path)
    plt.close(panes)
