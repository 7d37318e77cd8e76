"""The README's first picture: accuracy over MACs of trained models under budgets, nothing trained.

    python benchmarks/compress_picture.py

Draws ``results/compress.svg`` from the ``results/compress_*.csv`` that ``compress.py`` wrote: a pane for each base, a
curve for each form that was measured, with standard errors.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Modules are searched in the root of the checkout, not in this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.replacement_report import Row, read_csv
from cp_vision.shared.files import write_text

matplotlib.use("svg")
import matplotlib.pyplot as plt

__all__ = ["BASES", "FORMS", "draw", "read"]

RESULTS = Path(__file__).parent / "results"
BASES = {
    "fashion_vit": "ViT of 6 blocks, Fashion-MNIST",
    "elpv_dinov2": "DINOv2 ViT-S/14, solar cells",
    "fashion_resnet": "ResNet of 10 blocks, Fashion-MNIST",
    "elpv_lite0": "EfficientNet-Lite0, solar cells",
}
# By the column ``form`` of the CSV files: what it is called, colour, marker.
FORMS = {
    "drop only": ("blocks left out alone", "#8f8f8f", "s"),
    "Torch-Pruning": ("channels pruned, Torch-Pruning", "#d9652b", "^"),
    "Torch-Pruning, refitted": ("these, with our least squares", "#b8860b", "v"),
    "no pools": ("maps and kept parts", "#4a90d9", "o"),
    "best": ("maps, kept parts and pools", "#1a9e84", "D"),
}
# Points below the base that a pane shows, and one that looks nearer; what lies deeper is written at the pane's foot.
_DEPTH, _NEARER = 27.0, 2.5
_INK, _PAPER, _RULE = "#1f2328", "#ffffff", "#c8ccd1"
# A browser in dark mode shows the same on dark paper; whatever knows of no modes shows it on white.
_DARK = "".join(
    f'[style*="{what}: {light}"]{{{what}: {dark} !important}}'
    for light, dark in ((_INK, "#e6edf3"), (_PAPER, "#161b22"), (_RULE, "#3d444d"))
    for what in ("fill", "stroke")
)


def read(folder: Path) -> dict[str, list[Row]]:
    """The rows of every base that was measured."""
    found = {base: read_csv(folder / f"compress_{base}.csv") for base in BASES}
    return {base: rows for base, rows in found.items() if rows}


def draw(measured: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw a pane for each base; drawn again, it is the same file.

    Args:
        measured: rows of the CSV files by base, the base's own first.
        path: an SVG file.
    """
    style = {
        **{"svg.hashsalt": "cp-vision", "font.size": 10, "figure.facecolor": _PAPER, "axes.facecolor": _PAPER},
        **{"text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK},
        **{"axes.edgecolor": _RULE, "grid.color": _RULE},
    }
    with plt.rc_context(style):
        height = (len(measured) + 1) // 2
        figure, grid = plt.subplots(height, 2, figsize=(7.2, 0.9 + 2.7 * height), squeeze=False)
        # Fixed margins: where points lie doesn't depend on fonts.
        figure.subplots_adjust(0.09, 0.5 / figure.get_figheight(), 0.985, 1 - 0.85 / figure.get_figheight(), 0.2, 0.42)
        panes = list(grid.flat)
        for pane, (base, rows) in zip(panes, measured.items(), strict=False):
            _pane(pane, BASES[base], rows, _DEPTH)
        if len(measured) % 2:
            last = list(measured)[-1]
            _pane(panes[-1], f"{BASES[last].partition(',')[0]}: the same, nearer", measured[last], _NEARER)
        for row in grid:
            row[0].set_ylabel("test accuracy, %")
        lines = {line.get_label(): line for pane in panes for line in pane.get_legend_handles_labels()[0]}
        names = ["the base", *(title for title, _, _ in FORMS.values())]
        handles = [lines[name] for name in names if name in lines]
        figure.legend(handles=handles, loc="upper center", ncols=3, frameon=False, fontsize=9.5)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        plt.close(figure)
    # Lines end in spaces as matplotlib writes them.
    text = "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())
    write_text(path, text.replace("</style>", f"@media (prefers-color-scheme: dark) {{{_DARK}}}</style>", 1) + "\n")


def _pane(pane: Any, title: str, rows: Sequence[Row], depth: float) -> None:
    base = rows[0]
    top, error = float(base["accuracy"]), float(base["error"])
    floor, foot = top - depth, 0
    pane.axhline(top, color=_RULE, linewidth=1, zorder=0)
    for form, (name, colour, marker) in FORMS.items():
        own = [row for row in rows if row["form"] == form]
        if not own:
            continue
        points = sorted({(float(row["macs"]), float(row["accuracy"]), float(row["error"])) for row in own})
        macs, accuracies, errors = zip(*points, (1.0, top, 0.0), strict=True)
        pane.plot(macs, accuracies, color=colour, linewidth=1.4, zorder=2)
        shown = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "", "elinewidth": 1, "capsize": 2}
        pane.errorbar(macs[:-1], accuracies[:-1], errors[:-1], label=name, zorder=3, **shown)
        deeper = [f"{share:.2f}x: {accuracy:.1f}" for share, accuracy, _ in points if accuracy < floor]
        if deeper and depth > _NEARER:
            pane.text(0.42, floor + depth * (0.015 + 0.085 * foot), f"↓ {', '.join(deeper)}", color=colour, fontsize=9)
            foot += 1
    ink = {"color": _INK, "ecolor": _INK, "elinewidth": 1, "capsize": 2, "linestyle": ""}
    pane.errorbar([1.0], [top], [error], marker="*", markersize=11, zorder=4, label="the base", **ink)
    pane.set(title=title, xlabel="MACs, share of the base's", xlim=(0.2, 1.05), ylim=(floor, top + depth / 9))
    pane.title.set_fontsize(10)
    pane.set_xticks([0.25, 0.5, 0.75, 1.0], ["0.25x", "0.5x", "0.75x", "1x"])
    pane.grid(linewidth=0.5)
    pane.set_axisbelow(True)
    pane.spines[["top", "right"]].set_visible(False)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "compress.svg")
    output = parser.parse_args(argv).output
    draw(read(RESULTS), output)
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
