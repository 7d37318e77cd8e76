"""The README's first table and picture are those of the benchmark's CSV files."""

import re

import pytest
from doc_blocks import ROOT

from benchmarks.compress_picture import FORMS, draw, read

RESULTS = ROOT / "benchmarks" / "results"
# By what the README calls a base; its table's columns are FORMS, in this order.
BASES = {
    "ViT of 6 blocks": "fashion_vit",
    "DINOv2 ViT-S/14": "elpv_dinov2",
    "ResNet of 10 blocks": "fashion_resnet",
    "EfficientNet-Lite0": "elpv_lite0",
}


def test_the_readmes_first_table_is_the_benchmarks():
    measured, rows, told = read(RESULTS), [], set()
    head = re.search(
        r"^\| budget \| blocks left out .*\n\|[-|]+\n((?:\|.*\n)+)", (ROOT / "README.md").read_text(), re.M
    )
    for line in head[1].splitlines():
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not first.endswith("x"):
            (base,) = (base for name, base in BASES.items() if first.startswith(name))
            rows, of_base = measured[base], measured[base][0]
            told.add(base)
            assert first.endswith(f", {float(of_base['accuracy']):.1f} ± {float(of_base['error']):.1f}")
            continue
        for form, cell in zip(FORMS, cells, strict=True):
            found = [row["accuracy"] for row in rows if (row["budget"], row["form"]) == (first, form)]
            assert cell == "".join(f"{float(accuracy):.1f}" for accuracy in found), (first, form)
    assert told == set(measured)


def marks(svg):
    """Where a picture's marks and ticks lie."""
    return [float(number) for at in re.findall(r'<use [^>]*?x="(\S+)" y="(\S+)"', svg) for number in at]


def test_the_first_picture_is_drawn_from_the_benchmarks(tmp_path):
    measured = read(RESULTS)
    draw(measured, tmp_path / "new.svg")
    new, kept = (tmp_path / "new.svg").read_text(), (RESULTS / "compress.svg").read_text()
    assert marks(new) == pytest.approx(marks(kept), abs=0.01), "draw it anew: python benchmarks/compress_picture.py"
    assert "prefers-color-scheme: dark" in kept
    # A base by itself, and in another form as well.
    vit = measured["fashion_vit"]
    draw({"fashion_vit": [row for row in vit if row["form"] in ("base", "best")]}, tmp_path / "one.svg")
    assert 0 < len(marks((tmp_path / "one.svg").read_text())) < len(marks(new))
