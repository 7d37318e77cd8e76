"""The report of ``benchmarks/paper_form.py``: what pools bring by seed, all models, what pools learned, pictures."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.patches import Circle
from scipy.stats import t as student
from torch import Tensor

from benchmarks.fashion_mnist import resize
from benchmarks.measure import times_in_turn
from benchmarks.paper_form_cases import FAMILIES, LONG, PLAIN, POOLS, Family, build
from benchmarks.paper_form_learned import DRAWN, learned
from cp_vision import count_macs
from cp_vision.shared.files import write_text

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["difference", "write_report"]

Rows = Sequence[Mapping[str, str]]
# Accuracy in percent by form and seed.
Scores = Mapping[str, Mapping[int, float]]
RIVALS = (PLAIN, "plain, wider", "plain, deeper", "depthwise 3x3", "pools, equal weights", "pools, fixed support")


def write_report(rows: Rows, images: Tensor, output: Path) -> None:
    """Write ``paper_form.md``, ``paper_form.svg`` and pictures of supports from the trainings that there are.

    Args:
        rows: lines of the table of trainings.
        images: test images of Fashion-MNIST (N, 1, 28, 28), normalised.
        output: folder.
    """
    found = {name: [row for row in rows if row["family"] == name] for name in FAMILIES}
    missing = [f"`{name}`" for name, own in found.items() if not own]
    found = {name: own for name, own in found.items() if own}
    dates, versions = sorted({row["date"] for row in rows}), sorted({row["torch"] for row in rows})
    lines = [
        "# Do context pools pay where the paper has them?",
        "",
        f"{len(rows)} trainings of `python benchmarks/paper_form.py --data-dir DIR`, "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, torch {', '.join(versions)}; the report of "
        "`... --report`. Small models from scratch, all of a family by one recipe. ± is the standard error of the mean "
        "over seeds. Models of a seed see the same images in the same order, so differences are taken seed by seed; "
        "they are called none where zero lies within Student's 95 % interval, and where there is one seed alone.",
        *([f"Not run yet: {', '.join(missing)}."] if missing else []),
        "",
        "Accuracy of the model with pools, less that of another, in points (seeds):",
        "",
        *_table(("", *RIVALS), (_headline(name, _scores(own)) for name, own in found.items())),
        "",
        "![learning curves, differences by seed, learned supports by depth](paper_form.svg)",
    ]
    for name, own in found.items():
        lines += _section(name, FAMILIES[name], own)
        drawn = _first(own, POOLS)
        if drawn and any(site["tokens"] for site in drawn.values()):
            picture = f"paper_form_supports_{name}.png"
            _draw_supports(drawn, resize(images[list(DRAWN)], FAMILIES[name].size), output / picture)
            lines += ["", f"![supports of the pools of {name}, over three test images]({picture})"]
    _draw(found, output / "paper_form.svg")
    write_text(output / "paper_form.md", "\n".join(lines) + "\n")


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float, int, bool] | None:
    """Mean of the differences of the seeds that both have, its standard error, their number, and whether there is one.

    There is where zero lies outside of Student's 95 % interval. Of one seed the error isn't known (NaN).
    """
    found = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    if not found:
        return None
    mean, error = _mean(found)
    known = len(found) > 1 and abs(mean) > error * student.ppf(0.975, len(found) - 1)
    return mean, error, len(found), bool(known)


def _headline(name: str, scores: Scores) -> Iterator[str]:
    yield f"`{name}`"
    for rival in RIVALS:
        yield _shown(difference(scores.get(POOLS, {}), scores.get(rival, {})))


def _section(name: str, family: Family, rows: Rows) -> list[str]:
    scores, image = _scores(rows), (1, family.size, family.size)
    models = {form: build(family, family.forms[form]).eval() for form in scores}
    macs = {form: count_macs(build(family, family.forms[form]), image) for form in (PLAIN, *scores)}
    batch = torch.randn(64, *image)
    short = {form: model for form, model in models.items() if not form.endswith(LONG)}
    with torch.inference_mode():
        turns = times_in_turn({form: lambda model=model: model(batch) for form, model in short.items()}, 60, 15)
    # Whatever else the machine does only adds to a time.
    times = {form: min(own) for form, own in turns.items()}
    table = [
        (
            *(form, f"{len(own)}", _spread(list(own.values()))),
            "" if form == PLAIN else _shown(difference(own, scores.get(PLAIN, {}))),
            *(f"{macs[form] / 1e6:.2f} M", f"{macs[form] / macs[PLAIN]:.3f}x"),
            f"{sum(parameter.numel() for parameter in models[form].parameters()):,}",
            f"{times[PLAIN] / times[form]:.2f}x" if form in times and PLAIN in times else "",
        )
        for form, own in scores.items()
    ]
    columns = ("model", "seeds", "test accuracy, %", "less plain", "MACs", "", "parameters", "images/s")
    arguments = ", ".join(f"{key}={value}" for key, value in family.arguments.items())
    lines = [
        "",
        f"## {name}: `{family.base}` with {arguments}",
        "",
        f"{family.train:,} images of {'Fashion-MNIST' if family.data == 'fashion' else 'solar cells (ELPV)'}, "
        f"{family.size} x {family.size} pixels; recipe `fashion_mnist` with {', '.join(family.settings)}. Images/s: "
        "forward passes of 64 on one thread, all models in turn, the fastest of each.",
        "",
        *_table(columns, table),
        *_longer(scores),
    ]
    supports = list(_supports(family, rows))
    if supports:
        lines += [
            "",
            "Supports in pixels of the image, over 100 test images, means over seeds: at the start, and in the end "
            "their quartiles.",
            "",
            *_table(("model", "site", "start", "a quarter below", "half below", "three quarters below"), supports),
        ]
    return lines


def _longer(scores: Scores) -> Iterator[str]:
    for form in (PLAIN, POOLS):
        gain = difference(scores.get(form + LONG, {}), scores.get(form, {}))
        if gain:
            yield f"\nTwice the epochs bring {form} {_shown(gain)} points."


def _supports(family: Family, rows: Rows) -> Iterator[tuple[str, ...]]:
    for form in family.forms:
        noted = [json.loads(row["learned"]) for row in rows if row["form"] == form and row["learned"]]
        if not noted:
            continue
        new = build(family, family.forms[form]).eval()
        start = json.loads(learned(new, torch.zeros(1, 1, family.size, family.size), family.size, False))
        for site in noted[0]:
            quartiles = zip(*(seed[site]["quartiles"] for seed in noted), strict=True)
            first = f"{start[site]['quartiles'][1]:.1f}"
            yield form, f"`{site}`", first, *(_spread(values) for values in quartiles)


def _scores(rows: Rows) -> Scores:
    """In the order of the family's forms."""
    return {
        form: own
        for form in FAMILIES[rows[0]["family"]].forms
        if (own := {int(row["seed"]): float(row["accuracy"]) for row in rows if row["form"] == form})
    }


def _first(rows: Rows, form: str) -> dict[str, Any]:
    return next((json.loads(row["learned"]) for row in rows if (row["form"], row["seed"]) == (form, "0")), {})


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; of one value the error isn't known."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error


def _spread(values: Sequence[float]) -> str:
    mean, error = _mean(values)
    return f"{mean:.2f}" if math.isnan(error) else f"{mean:.2f} ± {error:.2f}"


def _shown(found: tuple[float, float, int, bool] | None) -> str:
    if found is None:
        return "not run"
    mean, error, count, known = found
    spread = "" if math.isnan(error) else f" ± {error:.2f}"
    return f"{mean:+.2f}{spread} ({count}{'' if known else ', none'})"


def _table(head: Sequence[str], rows: Any) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _draw(found: Mapping[str, Rows], path: Path) -> None:
    """For each family: learning curves, differences from plain, and supports by depth."""
    # No date, and the same names of parts each time, so that the same figures give the same file.
    plt.rcParams["svg.hashsalt"] = "cp-vision"
    figure, axes = plt.subplots(len(found), 3, figsize=(13, 3.4 * len(found)), squeeze=False, layout="constrained")
    for (curves, gains, supports), (name, rows) in zip(axes, found.items(), strict=True):
        scores = _scores(rows)
        for number, form in enumerate(scores):
            own = [[float(v) for v in row["curve"].split()] for row in rows if row["form"] == form]
            means = [statistics.mean(values) for values in zip(*own, strict=True)]
            share = FAMILIES[name].forms[form].epochs / len(means)
            curves.plot([share * (i + 1) for i in range(len(means))], means, ".-", color=f"C{number}", label=form)
            gain = difference(scores[form], scores.get(PLAIN, {}))
            if gain and form != PLAIN:
                error = 0 if math.isnan(gain[1]) else gain[1]
                gains.errorbar(gain[0], form, xerr=error, fmt="o", color=f"C{number}", capsize=3)
        gains.axvline(0, color="black", lw=0.8)
        gains.invert_yaxis()
        noted = [json.loads(row["learned"]) for row in rows if row["form"] == POOLS]
        for site in noted[0] if noted else ():
            low, median, high = (statistics.mean(seed[site]["quartiles"][q] for seed in noted) for q in range(3))
            supports.errorbar(site, median, [[median - low], [high - median]], fmt="o", color="C0", capsize=3)
        curves.set(title=f"{name}: mean over seeds", xlabel="share of the epochs", ylabel="test accuracy, %")
        gains.set(title="less plain, mean and standard error", xlabel="points")
        supports.set(title="supports of pools, quartiles", ylabel="pixels of the image", ylim=(0, None))
        supports.tick_params(axis="x", labelrotation=30)
        for axis in (curves, gains, supports):
            axis.grid(alpha=0.25)
        curves.legend(fontsize=6)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _draw_supports(sites: Mapping[str, Any], images: Tensor, path: Path) -> None:
    """A circle for every token, whose radius is its support; images (N, 1, H, W) from top to bottom."""
    figure, axes = plt.subplots(
        len(images), len(sites), figsize=(2.4 * len(sites), 2.4 * len(images)), squeeze=False, layout="constrained"
    )
    for column, (site, learned_there) in zip(axes.T, sites.items(), strict=True):
        column[0].set_title(site, fontsize=9)
        for axis, image, supports in zip(column, images, learned_there["tokens"], strict=True):
            axis.imshow(image[0].numpy(), cmap="gray")
            axis.axis("off")
            side = image.shape[-1] / len(supports)
            for y, row in enumerate(supports):
                for x, support in enumerate(row):
                    centre = ((x + 0.5) * side - 0.5, (y + 0.5) * side - 0.5)
                    axis.add_patch(Circle(centre, support, fill=False, color="orange", lw=0.8))
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)
