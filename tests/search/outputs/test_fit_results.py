"""Results of a search by fits are read back whole, or refused in one line."""

import copy
import json

import pytest
import timm
import torch

from cp_vision import UserError
from cp_vision.search import compress
from cp_vision.search.cli.main import main
from cp_vision.search.outputs.fit_results import read_results, values_of


@pytest.fixture(scope="module")
def values():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, patch_size=8, depth=2, num_classes=3).eval()
    quick = {"kinds": ["linear"], "max_run": 1, "tries": 2, "evaluate": lambda model: torch.ones(4)}
    found = compress(model, torch.randn(16, 3, 32, 32), "0.8x", **quick)
    about = {"base": "test_vit", "dataset": "", "test_images": 4, "command": "", "scores_of": None}
    return json.loads(json.dumps(values_of(found, found.blocks, **about)))


def test_they_are_read_as_they_were_written(values, tmp_path):
    assert read_results(tmp_path) is None
    (tmp_path / "results.json").write_text(json.dumps(values))
    assert read_results(tmp_path) == values


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda values: values["points"][0].pop("costs"), "points.0.costs"),
        (lambda values: values["points"][0].update(divergence="low"), "points.0.divergence"),
        (lambda values: values["points"][0]["test_top1"].update(value=None), "points.0.test_top1.value"),
        (lambda values: values["points"][0]["counterparts"].update(best=3), "points.0.counterparts.best"),
        (lambda values: values["points"].append("0.5x"), "points.1"),
        (lambda values: values["options"][0].update(saved=[1]), "options.0.saved"),
        (lambda values: values.update(images=True), "images"),
        (lambda values: values.pop("blocks"), "blocks"),
    ],
)
def test_what_was_changed_by_hand_is_named(change, named, values, tmp_path, capsys):
    changed = copy.deepcopy(values)
    change(changed)
    (tmp_path / "results.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=f"results.json' is damaged: {named}"):
        read_results(tmp_path)
    assert main(["report", str(tmp_path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert named in said or "search.json" in said
