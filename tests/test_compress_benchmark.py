"""The benchmark of models under budgets: its rows, its file, its table."""

import timm
import torch
from small_models import images

from benchmarks.compress import BUDGETS, CASES, Case, _write, measure
from benchmarks.compress_report import report
from benchmarks.replacement_report import read_csv


def test_rows_files_and_tables(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, depth=3, num_classes=5).eval()
    case = Case(model, images(32, size=(32, 32)), images(20, size=(32, 32)), torch.arange(20) % 5)
    path = tmp_path / "compress_fashion_vit.csv"
    for budget in ("0.6x", "0.8x"):
        rows, result = measure("fashion_vit", case, [budget], kinds=["linear"], max_run=1, tries=1)
        assert [row.form for row in rows] == ["base", "best", "no pools", "drop only"]
        assert all(row.macs <= float(budget[:-1]) and row.test == 20 and row.error > 0 for row in rows[1:])
        _write(path, rows)
    # Another budget's rows stay, the larger one first.
    assert [row["budget"] for row in read_csv(path)] == ["", *3 * ["0.8x"], *3 * ["0.6x"]]
    (tmp_path / "compress_fashion_vit.txt").write_text(f"10 s\n\n{result.table()}\n")
    report(tmp_path, list(CASES), "torch 2")
    text = (tmp_path / "compress.md").read_text()
    assert text.count("| 0.8x |") == text.count("| 0.6x |") == 1
    assert "blocks.0.mlp" in text
    assert BUDGETS.keys() == CASES.keys()
