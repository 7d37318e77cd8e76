"""Scores of a search as a file: budgets are solved by them without images, and other images fit what they chose."""

import dataclasses
import json

import pytest
import timm
import torch
from digits_base import make_base
from timm.models import save_for_hf

from cp_vision import Architecture, UserError, count_macs
from cp_vision.search import Scores, compress, read_scores, solve
from cp_vision.search.cli.main import main
from cp_vision.search.fit.scores import BUNDLED, SCORES, shipped_scores

ARGUMENTS = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 10, "init_values": 1.0}
QUICK = {"kinds": ["linear", "pool/3", "thin heads/2"], "max_run": 2, "tries": 3}


@pytest.fixture(scope="module")
def digits():
    """A base that tells digits apart, and images."""
    return make_base("test_vit2", ARGUMENTS, 300, input_size=(3, 32, 32))


@pytest.fixture(scope="module")
def half(digits):
    """What a search on the first images found."""
    model, images = digits
    return compress(model, images[:64], "0.6x,0.8x", counterparts=False, **QUICK)


def test_a_file_says_what_the_search_knew(half, tmp_path):
    half.scores.save(tmp_path / "mine.json")
    again = read_scores(tmp_path / "mine.json")
    assert again.to_json() == half.scores.to_json()
    assert again.fingerprint == half.scores.fingerprint
    for read, own in zip(again.options, half.options, strict=True):
        assert (read.key, read.options, read.saved, read.blocks) == (own.key, own.options, own.saved, own.blocks)
        assert read.score == pytest.approx(own.score, rel=1e-3)
    assert again.base.build().patch_embed.patch_size == (8, 8)
    keys = {tuple(option.key for option in candidate) for candidate, _ in again.scored}
    assert {tuple(option.key for option in point.best.candidate) for point in half.points} <= keys


def test_solved_budgets_are_kept_by_the_whole_model(half):
    found = solve(half.scores, "0.8x,0.7x,0.6x")
    for one in found:
        assert one.costs["macs"] <= float(one.budget[:-1]) * half.base_macs
        architecture = Architecture.from_json(one.architecture.to_json())
        model = timm.create_model(architecture.model_name, **architecture.create_args)
        assert count_macs(model) == one.costs["macs"]
        assert sum(parameter.numel() for parameter in model.parameters()) == one.costs["params"]
    # What was scored as a whole is known better than any sum.
    by_budget = {one.budget: one for one in found}
    for point in half.points:
        measured = [score for candidate, score in half.scores.scored if candidate == point.best.candidate]
        assert by_budget[point.budget].score <= measured[0] * 1.001
    (by_params,) = solve(half.scores, "params=0.7x")
    assert by_params.costs["params"] <= 0.7 * half.base_costs["params"]
    assert solve(half.scores, "1x")[0].score == 0


def test_other_images_fit_what_the_scores_chose_and_nothing_else(digits, half, tmp_path):
    model, images = digits
    scores = Scores.from_json(half.scores.to_json(), "half")
    others = images[64:128]
    found = compress(model, others, "0.7x", scores=scores, folder=tmp_path, **QUICK)
    whole = compress(model, others, "0.7x", **QUICK)
    assert found.images == whole.images == 64
    assert found["0.7x"].best.macs <= 0.7 * found.base_macs
    assert found["0.7x"].best.score <= 1.5 * whole["0.7x"].best.score
    fitted = {path: path.stat().st_mtime_ns for path in tmp_path.glob("one-*.safetensors")}
    assert 0 < len(fitted) < len(whole.options) / 2
    again = compress(model, others, "0.7x", scores=scores, folder=tmp_path, **QUICK)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("one-*.safetensors")} == fitted
    with torch.inference_mode():
        assert torch.equal(again.model(others), found.model(others))
    with pytest.raises(UserError, match="other scores"):
        compress(model, others, "0.7x", folder=tmp_path, **QUICK)


def test_another_model_of_the_same_blocks_counts_its_own_macs(half):
    torch.manual_seed(1)
    model = timm.create_model("test_vit2", **{**ARGUMENTS, "img_size": 64, "num_classes": 3}).eval()
    found = compress(model, torch.randn(16, 3, 64, 64), "0.7x", scores=half.scores, counterparts=False, **QUICK)
    assert found.base_macs == count_macs(model) > half.base_macs
    assert count_macs(found.model) == found["0.7x"].best.macs <= 0.7 * found.base_macs


@pytest.mark.parametrize("arguments", [{"depth": 3}, {"embed_dim": 96}])
def test_scores_of_another_base_are_refused(arguments, half):
    model = timm.create_model("test_vit2", **{**ARGUMENTS, **arguments}).eval()
    with pytest.raises(UserError, match="scores are of test_vit2"):
        compress(model, torch.randn(16, 3, 32, 32), "0.7x", scores=half.scores, **QUICK)


@pytest.mark.slow
def test_the_command_line_goes_from_scores_to_a_model(digits, half, tmp_path, capsys):
    scores = tmp_path / "half.json"
    dataclasses.replace(half.scores, data="digits").save(scores)
    assert main(["solve", str(scores), "--budget", "0.8x,0.7x", "--output", str(tmp_path / "solved")]) == 0
    said = capsys.readouterr().out
    assert "digits" in said
    for budget in ("0.8x", "0.7x"):
        text = (tmp_path / "solved" / budget / "architecture.json").read_text()
        assert Architecture.from_json(text).macs() <= float(budget[:-1]) * half.base_macs
    (command,) = (line for line in said.splitlines() if "cp-search test_vit2" in line)
    save_for_hf(digits[0], tmp_path / "base", safe_serialization=True)
    words = command.partition("cp-search ")[2].split()
    words = [{"FILE": str(tmp_path / "base" / "model.safetensors")}.get(word, word) for word in words]
    where = words.index("--data-dir")
    del words[where : where + 2]
    out = tmp_path / "out"
    words += ["--fit-images", "64", "--output", str(out)]
    assert main([*words, "--plan"]) == 0
    assert not out.exists()
    capsys.readouterr()
    assert main(words) == 0
    results = json.loads((out / "results.json").read_text())
    assert [point["budget"] for point in results["points"]] == ["0.8x", "0.7x"]
    assert results["scores_of"] == str(scores)
    assert str(scores) in (out / "report.html").read_text()
    timm.create_model(f"local-dir:{out / '0.7x'}", pretrained=True)
    # They are those of another search.
    assert not (out / SCORES).exists()


MISTAKES = [
    (["nowhere"], ["'nowhere'", "no file"]),
    (["HALF", "--budget", "latency=5ms"], ["latency=5ms", "MACs"]),
    (["HALF", "--budget", "0.01x"], ["0.01x", "smallest"]),
    (["HALF", "--budget", "70%"], ["'70%'"]),
    (["HALF", "--output", "HALF"], ["half.json", "--output"]),
    (["EMPTY"], ["empty", SCORES]),
    (["BROKEN"], ["broken.json"]),
    (["OTHER"], ["other.json", "format 99"]),
    (["LIST"], ["list.json"]),
    (["RANGE"], ["range.json", "blocks.0"]),
    (["COST"], ["test_vit2", "make them again"]),
]


@pytest.mark.parametrize(("words", "named"), MISTAKES)
def test_mistakes_are_one_line(words, named, half, tmp_path, capsys):
    text = half.scores.to_json()
    files = {
        "HALF": text,
        "BROKEN": text[:-200],
        "OTHER": text.replace('"format": 1', '"format": 99'),
        "LIST": "[1, 2]",
        "RANGE": text.replace('"blocks.0": ["", 0, 1,', '"blocks.0": ["", 0, 9,'),
        "COST": text.replace('"macs": ', '"macs": 1'),
    }
    for name, content in files.items():
        (tmp_path / f"{name.lower()}.json").write_text(content)
    (tmp_path / "empty").mkdir()
    paths = {name: str(tmp_path / f"{name.lower()}.json") for name in files} | {"EMPTY": str(tmp_path / "empty")}
    assert main(["solve", *(paths.get(word, word) for word in words)]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("cp-search: error: ")
    assert all(name in said for name in named), said


def test_without_a_name_those_of_the_package_are_listed(capsys):
    assert main(["solve"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in shipped_scores())


@pytest.mark.parametrize("name", shipped_scores())
def test_shipped_scores_are_of_what_timm_builds(name):
    path = BUNDLED / f"{name}.json"
    assert path.stat().st_size < 200_000
    scores = read_scores(name)
    assert scores.to_json() == path.read_text()
    (found,) = solve(scores, "0.6x")
    assert found.costs["macs"] <= 0.6 * scores.base_costs["macs"]
    assert found.score < min(option.score for option in scores.options if option.kind == "drop")
