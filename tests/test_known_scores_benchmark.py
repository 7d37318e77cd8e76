"""The benchmark of scores of another search: a row for each form and budget."""

import timm
import torch
from small_models import images

from benchmarks.compress import Case
from benchmarks.known_scores import HEAD, rows_of


def test_a_row_for_each_form_and_budget():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, depth=2, num_classes=5).eval()
    x = images(52, size=(32, 32))
    case = Case(model, x[:32], lambda more: x[:more], x[32:], torch.arange(20) % 5)
    rows = rows_of(case, ["0.6x"], kinds=["linear"], max_run=1, tries=2)
    assert len({row[0] for row in rows}) == len(rows) == 3
    assert all(len(row) == len(HEAD) and 0 < float(row[2]) <= 0.6 for row in rows)
