"""The benchmark of models under budgets: its rows, its file, its table."""

import timm
import torch
from small_models import images

from benchmarks.compress import BUDGETS, CASES, Case, _write, measure
from benchmarks.compress_report import report, speed_tables
from benchmarks.compress_speed import measure as speed
from benchmarks.replacement_report import read_csv


def test_rows_files_and_tables(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, depth=3, num_classes=5).eval()
    test = images(20, size=(32, 32))
    case = Case(model, images(32, size=(32, 32)), lambda more: test[:more], test, torch.arange(20) % 5)
    path = tmp_path / "compress_fashion_vit.csv"
    for budget in ("0.6x", "0.8x"):
        rows, result = measure("fashion_vit", case, [budget], kinds=["linear"], max_run=1, tries=1)
        assert [row.form for row in rows] == ["base", "best", "no pools", "drop only"]
        rows = [row._replace(further=1000) for row in rows] if budget == "0.6x" else rows
        assert all(row.macs <= float(budget[:-1]) and row.test == 20 and row.error > 0 for row in rows[1:])
        _write(path, rows)
    # Another budget's rows stay, the larger one first.
    assert [row["budget"] for row in read_csv(path)] == ["", *3 * ["0.8x"], *3 * ["0.6x"]]
    (tmp_path / "compress_fashion_vit.txt").write_text(f"10 s\n\n{result.table()}\n")
    report(tmp_path, list(CASES))
    text = (tmp_path / "compress.md").read_text()
    assert text.count("| 0.8x |") == text.count("| 0.6x |") == 1
    assert "32 unlabelled images; at 0.6x, 1,000 more for the fit at the end." in text
    assert "blocks.0.mlp" in text
    # Their speed, from the same rows.
    rows = read_csv(path)
    speeds = speed("fashion_vit", case, rows)
    assert [(one.budget, one.form) for one in speeds] == [(row["budget"], row["form"]) for row in rows]
    assert all(one.at_1 > 0 and one.at_32 > 0 for one in speeds)
    assert [f"{one.macs:.4g}" for one in speeds] == [f"{float(row['macs']):.4g}" for row in rows]
    told = "\n".join(speed_tables([{name: str(value) for name, value in one._asdict().items()} for one in speeds]))
    assert f"| 0.6x | {speeds[-1].macs:.2f}x: " in told
    assert BUDGETS.keys() == CASES.keys()
