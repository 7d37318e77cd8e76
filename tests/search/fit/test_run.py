"""A trained model and a budget on the command line give folders that timm loads."""

import json

import pytest
import timm
import torch
from timm.models import save_for_hf

from cp_vision import count_macs
from cp_vision.search.cli.main import main
from cp_vision.search.fit.accuracy import evaluated

ARGUMENTS = {"img_size": 32, "patch_size": 8, "depth": 3, "num_classes": 10}
MODEL_KWARGS = ["--model-kwargs", "patch_size=8", "depth=3"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a base; what it says of digits is no matter here."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", **ARGUMENTS)
    folder = tmp_path_factory.mktemp("base")
    save_for_hf(model, folder, safe_serialization=True)
    return folder / "model.safetensors"


def test_a_folder_for_each_budget(weights, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["test_vit", *MODEL_KWARGS, "--weights", str(weights), "--fit-images", "32", "--output", str(out)]
    assert main([*words, "--budget", "0.5x,0.8x"]) == 0
    shown = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    base = timm.create_model("test_vit", **ARGUMENTS)
    assert results["base_macs"] == count_macs(base)
    assert results["images"] == 32
    for point, share in zip(results["points"], (0.5, 0.8), strict=True):
        folder = out / point["budget"]
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert count_macs(model) == point["macs"] <= share * count_macs(base)
        assert json.loads((folder / "metrics.json").read_text()) == point
        assert str(folder) in shown
        assert f"local-dir:{folder}" in (folder / "README.md").read_text()
        assert {"linear only", "drop only"} >= set(point["counterparts"])
    # Another budget comes from the same library, which is not fitted again.
    library = {path: path.stat().st_mtime_ns for path in (out / "library").rglob("*.safetensors")}
    assert main([*words, "--budget", "0.7x"]) == 0
    assert {path: path.stat().st_mtime_ns for path in library} == library
    assert (out / "0.7x" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--budget", "0.5x"], ["--weights"]),
        (["--weights", "none.safetensors"], ["none.safetensors"]),
        (["--weights", "WEIGHTS", "--budget", "0.5x,0.5x"], ["0.5x"]),
        (["--weights", "WEIGHTS", "--budget", "0.01x"], ["0.01x"]),
        (["--weights", "WEIGHTS", "--budget", "params=0.5x"], ["params"]),
        (["--weights", "WEIGHTS", "--keep-accuracy", "0.5"], ["keep"]),
        (["--weights", "WEIGHTS", "--sampler", "tpe"], ["--sampler"]),
        (["--weights", "WEIGHTS", "--executor", "ray"], ["--executor"]),
        (["--weights", "WEIGHTS", "--fit-images", "3"], ["--fit-images"]),
        (["--weights", "WEIGHTS", "--evaluator", "train", "--fit-images", "64"], ["--fit-images"]),
        (["--weights", "WEIGHTS", "--model-kwargs", "depth=4"], ["depth"]),
        (["--weights", "WEIGHTS", "--plan"], ["--plan"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, named, weights, tmp_path, capsys):
    words = [str(weights) if word == "WEIGHTS" else word for word in words]
    kwargs = [] if "--model-kwargs" in words else MODEL_KWARGS
    out = tmp_path / "out"
    evaluator = [] if "--evaluator" in words else ["--evaluator", "fit"]
    assert main(["test_vit", *kwargs, *words, *evaluator, "--output", str(out)]) == 2
    # Beyond what tells how far it is.
    *_, said = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("cp-search: error: ")
    assert all(name in said for name in named)
    assert not out.exists() or not any(path.is_file() for path in out.rglob("*") if "library" not in path.parts)


def test_the_error_of_a_difference_is_that_of_its_pairs():
    one, other = torch.tensor([1.0, 1, 1, 0, 1, 1]), torch.tensor([1.0, 1, 0, 0, 1, 1])
    first, second = (evaluated(lambda _, values=values: values, torch.nn.Identity()) for values in (one, other))
    found = first.over(second)
    assert found.value == pytest.approx(100 / 6)
    assert found.error == pytest.approx(100 * float((one - other).std()) / 6**0.5)
    assert found.error < second.error
    assert evaluated(lambda _: 70.0, torch.nn.Identity()).over(second).error is None
