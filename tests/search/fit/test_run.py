"""A trained model and a budget on the command line give folders that timm loads."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf

from cp_vision import count_macs
from cp_vision.recipes.data.digits import Digits
from cp_vision.search.cli.main import main
from cp_vision.search.fit.accuracy import evaluated

ARGUMENTS = {"img_size": 32, "patch_size": 8, "depth": 3, "num_classes": 10}
MODEL_KWARGS = ["--model-kwargs", "patch_size=8", "depth=3"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a base that tells digits apart: a head on features as they are drawn, by least squares."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", **ARGUMENTS).eval()
    transform = create_transform(**resolve_model_data_config(model))
    digits = Digits(train=True)
    images = torch.stack([transform(digits[i][0].convert("RGB")) for i in range(400)])
    labels = torch.nn.functional.one_hot(torch.tensor([digits[i][1] for i in range(400)]), 10).float()
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        augmented = torch.cat([features, torch.ones(400, 1)], 1)
        solved = torch.linalg.solve(augmented.T @ augmented + 0.1 * torch.eye(augmented.shape[1]), augmented.T @ labels)
        model.head.weight.copy_(10 * solved[:-1].T)
        model.head.bias.copy_(10 * solved[-1])
    folder = tmp_path_factory.mktemp("base")
    save_for_hf(model, folder, safe_serialization=True)
    return folder / "model.safetensors"


@pytest.mark.slow
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
        (["--weights", "WEIGHTS", "--trials", "5"], ["--evaluator", "trials"]),
        (["--weights", "GUESSING"], ["guessing"]),
        (["--weights", "WEIGHTS", "--plan"], ["--plan"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, named, weights, tmp_path, capsys):
    guessing = tmp_path / "guessing.safetensors"
    if "GUESSING" in words:
        save_file(timm.create_model("test_vit", **ARGUMENTS).state_dict(), guessing)
    words = [{"WEIGHTS": str(weights), "GUESSING": str(guessing)}.get(word, word) for word in words]
    kwargs = [] if "--model-kwargs" in words else MODEL_KWARGS
    out = tmp_path / "out"
    evaluator = [] if "--evaluator" in words else ["--evaluator", "fit"]
    assert main(["test_vit", *kwargs, *words, *evaluator, "--output", str(out)]) == (1 if named == ["guessing"] else 2)
    # Beyond what tells how far it is.
    *_, said = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("cp-search: error: ")
    assert all(name in said for name in named)
    left = [path for path in out.rglob("*") if path.is_file() and not {"library", ".lock"} & {*path.parts}]
    assert not left


def test_the_error_of_a_difference_is_that_of_its_pairs():
    one, other = torch.tensor([1.0, 1, 1, 0, 1, 1]), torch.tensor([1.0, 1, 0, 0, 1, 1])
    first, second = (evaluated(lambda _, values=values: values, torch.nn.Identity()) for values in (one, other))
    found = first.over(second)
    assert found.value == pytest.approx(100 / 6)
    assert found.error == pytest.approx(100 * float((one - other).std()) / 6**0.5)
    assert found.error < second.error
    assert evaluated(lambda _: 70.0, torch.nn.Identity()).over(second).error is None
